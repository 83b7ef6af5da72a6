"""``hybrid generate``: one question, one answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from router.cli.options import (
    NOTICE,
    check_used,
    conversation_options,
    make_router,
    model_options,
    sampling_options,
    time_limit,
)
from router.cli.request import check_together, request
from router.cli.terminal import as_json, decision_line, listening, usage_line, write

if TYPE_CHECKING:
    from router.models import Listener
    from router.router import Answer
    from router.types import Chunk, Completion

Events: TypeAlias = "Iterator[tuple[Answer, Chunk]]"


@click.command()
@click.argument("prompt", required=False)
@conversation_options
@model_options
@sampling_options
@time_limit
@click.option("-j", "--json-schema", metavar="FILE|JSON", help="Answer in JSON of this schema.")
@click.option("--explain", is_flag=True, help="Say on stderr which backend answers and why.")
@click.option("--usage", is_flag=True, help="Say on stderr what the answer took.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object instead of the text.")
def generate(prompt: str | None, images: tuple[str, ...], **options: Any) -> None:
    """Answer PROMPT (or stdin) about any images given, as text on stdout.

    \b
    hybrid generate "What can you do?"
    hybrid generate -i photo.jpg "Which colours do you see?"
    cat photo.jpg | hybrid generate -i - --usage "What is this?"
    """
    check_together(prompt, images)
    if options["logprobs"] is not None and not options["as_object"]:
        raise click.UsageError("--logprobs are part of the JSON output; add --json")
    if options["model"] is None:
        click.echo(NOTICE, err=True)
    from router.cli.signals import pump

    with listening("reading the model and the question") as listener:
        events = pump(_events(prompt, images, options, listener), options["timeout"])
        answer, _ = next(events)
    check_used(answer.sampling, options)
    if options["explain"]:
        click.echo(decision_line(answer.decision), err=True)
    completion = _show(answer, events, stream=not options["no_stream"], quiet=options["as_object"])
    if options["as_object"]:
        write(as_json(completion) + "\n")
    if options["usage"]:
        click.echo(usage_line(completion.stats), err=True)


def _events(
    prompt: str | None, images: tuple[str, ...], options: dict[str, Any], listener: Listener
) -> Events:
    """The answer as it comes; first an empty chunk, when it is known who answers."""
    from router.types import Chunk

    asked = request(prompt, images, options)
    answer = make_router(options, listener).answer(asked)
    yield answer, Chunk("")
    with closing(answer.chunks) as chunks:
        for chunk in chunks:
            yield answer, chunk


def _show(answer: Answer, events: Events, *, stream: bool, quiet: bool) -> Completion:
    """Print the answer as it comes, or when it is whole, or not at all; return it."""
    from router.router import join

    chunks = []
    try:
        for _, chunk in events:
            chunks.append(chunk)
            if stream and not quiet:
                write(chunk.text)
    finally:
        # Ctrl-C and failures too leave what was said so far, on a line of its own
        if not quiet:
            write("\n" if stream else "".join(chunk.text for chunk in chunks) + "\n")
    return join(chunks, answer.decision)
