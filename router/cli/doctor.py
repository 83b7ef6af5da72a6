"""``hybrid doctor``: what this machine can run, and what to do about what it cannot."""

from __future__ import annotations

import json
from typing import Any

import click

from router.cli.options import option, runtime
from router.cli.terminal import telling, write


@click.command()
@option(
    "-m", "--model", metavar="scenes|DIR|ID", help="Try the backends with this one; with scenes by default."
)
@option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@option("--dtype", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", help="Of PyTorch's weights.")
@option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads to compute with.")
@option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give a backend up when it loads or answers for so long; 120 by default.",
)
@click.option("--no-run", is_flag=True, help="Load nothing: only tell which backends could be used.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
def doctor(model: str | None, timeout: float | None, no_run: bool, as_object: bool, **options: Any) -> None:
    """Tell what this machine can run: its processor and memory, the libraries, the models, every backend.

    Each backend loads the model and gives one token, about a text and about an image, in a process of its
    own; a model that has no export yet gets one, as on first use. Nothing is downloaded. Exit code 5: no
    backend can answer here.
    """
    from backends.base import BackendError
    from router.cli.doctor_page import page
    from router.doctor import LIMIT_SECONDS, examine
    from router.models import find

    limit = LIMIT_SECONDS if timeout is None else timeout
    with telling("looking at this machine") as tell:
        found = find(model, offline=True)
        report = examine(found, runtime(options), run=not no_run, limit_seconds=limit, tell=tell)
    write(json.dumps(report.fields(), indent=1) + "\n" if as_object else page(report))
    if not report.can_answer:
        raise BackendError("no backend can answer here; beside each it says why")
