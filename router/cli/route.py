"""``hybrid route``: which backend would answer, and why; a dry run that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from router.cli.fields import option, options_class, takes
from router.cli.options import RequestOptions
from router.cli.request import check_together, read_request
from router.cli.terminal import decision_line, progress_bar, size, write

if TYPE_CHECKING:
    from rich.table import Table

    from router.types import Candidate, Route


@options_class
class RouteOptions(RequestOptions):
    """What would be asked, and how the answer is printed."""

    as_object: bool = option("--json", environment=False, is_flag=True, help="Print one JSON object.")


@click.command()
@click.argument("prompt", required=False)
@takes(RouteOptions)
def route(options: RouteOptions, prompt: str | None) -> None:
    """Say which backend would answer PROMPT (or stdin) and the images, and why; nothing is loaded.

    Every backend is listed with what it can do here, or why it cannot answer this. How long it would take is
    told where 'hybrid bench' has measured it on this machine; loading counts where it is needed.

    \b
    hybrid route "What can you do?"
    hybrid route -i photo.jpg --policy fastest "Which colours do you see?"
    """
    check_together(prompt, options.conversation.images)
    with progress_bar("reading the model and the question") as listener:
        router = options.router.make_router(listener)
        chosen = router.route(read_request(prompt, options))
    if options.as_object:
        write(json.dumps(chosen.fields(), ensure_ascii=False) + "\n")
    else:
        _print(chosen)


def _print(route: Route) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    console.print(decision_line(route.decision))
    known = route.situation
    images = f", {known.image_tokens} of them for images" if known.image_tokens else ""
    console.print(f"{known.prompt_tokens} prompt tokens{images}; at most {known.max_tokens} in the answer")
    console.print(_table(route))
    for line in _refusals(route):
        console.print(line)


def _table(route: Route) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("backend", "answers", "model", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("memory", "first token", f"all {route.situation.max_tokens}"):
        table.add_column(column, justify="right")
    for candidate in route.candidates:
        table.add_row(*_cells(candidate, chosen=candidate.backend == route.decision.backend))
    return table


def _cells(candidate: Candidate, *, chosen: bool) -> Iterator[str]:
    estimate = candidate.estimate
    yield candidate.backend
    yield "this one" if chosen else "no" if candidate.refusal else "could"
    yield {True: "exported", False: "to be exported", None: "checkpoint"}[candidate.exported]
    yield "" if candidate.memory is None else size(candidate.memory)
    if estimate is None:
        yield from ("not measured", "")
        return
    load = 0.0 if candidate.loaded else estimate.load_seconds
    yield f"{load + estimate.first_token_seconds:.1f} s"
    yield f"{load + estimate.seconds:.1f} s"


def _refusals(route: Route) -> Iterator[str]:
    for candidate in route.candidates:
        if candidate.refusal is not None:
            yield f"{candidate.backend} cannot: {candidate.refusal}"
