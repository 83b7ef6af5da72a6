"""``hybrid generate``: one question, one answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from router.cli.options import model_options, option, runtime, sampling, sampling_options
from router.cli.output import as_json, decision_line, usage_line, write
from router.cli.progress import listening

if TYPE_CHECKING:
    from router.models import Listener
    from router.router import Answer
    from router.types import Chunk, Completion, Picture, Request, Sampling

Events: TypeAlias = "Iterator[tuple[Answer, Chunk]]"

_PROMPT_LIMIT = 8 << 20  # bytes read from stdin; far above any context

NOTICE = (
    "hybrid: answering with 'scenes', the small embedded model: it knows colours and shapes in simple "
    "pictures, nothing else. For a real one: -m Qwen/Qwen3-VL-2B-Instruct (fetched on first use), or set "
    "HYBRID_MODEL"
)


@click.command()
@click.argument("prompt", required=False)
@click.option("-i", "--image", "images", multiple=True, metavar="PATH|-", help="A picture; may be repeated.")
@option("-s", "--system", metavar="TEXT", help="What the model is told before the conversation.")
@model_options
@sampling_options
@option("--min-pixels", type=click.IntRange(min=1), metavar="N", help="Enlarge pictures below N pixels.")
@option("--max-pixels", type=click.IntRange(min=1), metavar="N", help="Shrink pictures above N pixels.")
@option("--max-image-pixels", type=click.IntRange(min=1), metavar="N",
        help="Refuse to decode pictures above N pixels; 40 million by default.")  # fmt: skip
@option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up after this long.",
)
@click.option("-j", "--json-schema", metavar="FILE|JSON", help="Answer in JSON of this schema.")
@click.option("--explain", is_flag=True, help="Say on stderr which backend answers and why.")
@click.option("--usage", is_flag=True, help="Say on stderr what the answer took.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object instead of the text.")
def generate(prompt: str | None, images: tuple[str, ...], **options: Any) -> None:
    """Answer PROMPT (or stdin) about any pictures given, as text on stdout.

    \b
    hybrid generate "What can you do?"
    hybrid generate -i photo.jpg "Which colours do you see?"
    cat photo.jpg | hybrid generate -i - --usage "What is this?"
    """
    _check_together(prompt, images, options)
    if options["model"] is None:
        click.echo(NOTICE, err=True)
    from router.cli.pump import pump

    with listening("reading the model and the question") as listener:
        events = pump(_events(prompt, images, options, listener), options["timeout"])
        answer, _ = next(events)
    _check_used(answer.sampling, options)
    if options["explain"]:
        click.echo(decision_line(answer.decision), err=True)
    completion = _show(answer, events, stream=not options["no_stream"], quiet=options["as_object"])
    if options["as_object"]:
        write(as_json(completion) + "\n")
    if options["usage"]:
        click.echo(usage_line(completion.stats), err=True)


def _check_together(prompt: str | None, images: tuple[str, ...], options: dict[str, Any]) -> None:
    """Refuse what does not go together before anything is read."""
    from_stdin = images.count("-") + (prompt in (None, "-"))
    if from_stdin > 1:
        raise click.UsageError("stdin holds one thing, the prompt or one picture; give the rest as arguments")
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("no prompt; give it as an argument, or on stdin")
    if options["logprobs"] is not None and not options["as_object"]:
        raise click.UsageError("--logprobs are part of the JSON output; add --json")


def _check_used(resolved: Sampling, options: dict[str, Any]) -> None:
    """Refuse a filter that nothing would pass through, which is only known with the model's defaults."""
    idle = [
        f"--{name.replace('_', '-')}" for name in ("top_k", "top_p", "min_p") if options[name] is not None
    ]
    if idle and resolved.temperature == 0:
        raise click.UsageError(
            f"{idle[0]} does nothing at temperature 0, where this answer is; add --temp 0.7"
        )


def _events(
    prompt: str | None, images: tuple[str, ...], options: dict[str, Any], listener: Listener
) -> Events:
    """The answer as it comes; first an empty chunk, when it is known who answers."""
    from router.models import find
    from router.router import Router
    from router.types import Chunk

    request = _request(prompt, images, options)
    model = find(options["model"], listener, offline=options["offline"])
    answer = Router(model, runtime(options), listener=listener).answer(request)
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


def _request(prompt: str | None, images: tuple[str, ...], options: dict[str, Any]) -> Request:
    from router.types import Message, Request

    pictures = _pictures(images, options["max_image_pixels"])
    question = Message.of("user", *pictures, _text(prompt))
    told = () if options["system"] is None else (Message.of("system", options["system"]),)
    backend = None if options["backend"] == "auto" else options["backend"]
    return Request(
        (*told, question),
        sampling(options),
        backend,
        options["min_pixels"],
        options["max_pixels"],
        _schema(options["json_schema"]),
    )


def _schema(said: str | None) -> str | None:
    """A schema written out, or read from the file that is named."""
    if said is None or said.lstrip().startswith("{"):
        return said
    try:
        return Path(said).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"--json-schema: '{said}' cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None


def _text(prompt: str | None) -> str:
    """The prompt from the argument, or from stdin when it is "-" or left out."""
    if prompt is not None and prompt != "-":
        return prompt
    return _decode(sys.stdin.buffer.read(_PROMPT_LIMIT + 1))


def _decode(data: bytes) -> str:
    from backends.base import RequestError

    if len(data) > _PROMPT_LIMIT:
        raise RequestError(
            "the prompt on stdin is longer than 8 MiB; shorten it", code="context_length_exceeded"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the prompt on stdin is not UTF-8 (byte {error.start}); convert it first",
            code="invalid_encoding",
        ) from None


def _pictures(paths: tuple[str, ...], max_pixels: int | None) -> tuple[Picture, ...]:
    from router.pictures import PictureLimits, open_picture, read_picture

    limits = PictureLimits() if max_pixels is None else PictureLimits(max_pixels=max_pixels)
    return tuple(
        read_picture(sys.stdin.buffer.read(limits.max_bytes + 1), limits)
        if path == "-"
        else open_picture(path, limits)
        for path in paths
    )
