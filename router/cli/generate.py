"""``hybrid generate``: one question, one answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

import click

from router.cli.fields import option, options_class, takes
from router.cli.options import NOTICE, POSITIVE_SECONDS, RequestOptions
from router.cli.request import check_together, read_request
from router.cli.terminal import as_json, decision_line, progress_bar, usage_line, write

if TYPE_CHECKING:
    from router.models import Listener
    from router.router import Answer
    from router.types import Chunk, Completion

Events: TypeAlias = "Iterator[tuple[Answer, Chunk]]"


@options_class
class GenerateOptions(RequestOptions):
    """What is asked, how it is answered, and what is printed."""

    timeout: float | None = option(
        "--timeout", type=POSITIVE_SECONDS, metavar="SECONDS", help="Give up after this long."
    )
    json_schema: str | None = option(
        "-j",
        "--json-schema",
        environment=False,
        metavar="FILE|JSON",
        help="Answer in JSON of this schema.",
    )
    explain: bool = option(
        "--explain", environment=False, is_flag=True, help="Say on stderr which backend answers and why."
    )
    usage: bool = option(
        "--usage", environment=False, is_flag=True, help="Say on stderr what the answer took."
    )
    no_stream: bool = option(
        "--no-stream", environment=False, is_flag=True, help="Print the answer when it is whole."
    )
    as_object: bool = option(
        "--json", environment=False, is_flag=True, help="Print one JSON object instead of the text."
    )


@click.command()
@click.argument("prompt", required=False)
@takes(GenerateOptions)
def generate(options: GenerateOptions, prompt: str | None) -> None:
    """Answer PROMPT (or stdin) about any images given, as text on stdout.

    \b
    hybrid generate "What can you do?"
    hybrid generate -i photo.jpg "Which colours do you see?"
    cat photo.jpg | hybrid generate -i - --usage "What is this?"
    """
    check_together(prompt, options.conversation.images)
    if options.sampling.logprobs is not None and not options.as_object:
        raise click.UsageError("--logprobs are part of the JSON output; add --json")
    if options.router.model is None:
        click.echo(NOTICE, err=True)
    from router.cli.signals import iterate_in_thread

    with progress_bar("reading the model and the question") as listener:
        events = iterate_in_thread(_events(prompt, options, listener), options.timeout)
        answer, _ = next(events)
    options.sampling.check_used(answer.sampling)
    if options.explain:
        click.echo(decision_line(answer.decision), err=True)
    completion = _print(answer, events, stream=not options.no_stream, quiet=options.as_object)
    if options.as_object:
        write(as_json(completion) + "\n")
    if options.usage:
        click.echo(usage_line(completion.stats), err=True)


def _events(prompt: str | None, options: GenerateOptions, listener: Listener) -> Events:
    """The answer as it comes; first an empty chunk, when it is known who answers."""
    from router.types import Chunk

    request = read_request(prompt, options, options.json_schema)
    answer = options.router.make_router(listener).answer(request)
    yield answer, Chunk("")
    with closing(answer.chunks) as chunks:
        for chunk in chunks:
            yield answer, chunk


def _print(answer: Answer, events: Events, *, stream: bool, quiet: bool) -> Completion:
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
