"""One question from a command's arguments: its text, its images, and how it is to be answered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import image_limits, sampling

if TYPE_CHECKING:
    from router.images import InputLimits
    from router.types import Picture, Request

_PROMPT_LIMIT = 8 << 20  # bytes read from stdin; far above any context


def check_together(prompt: str | None, images: tuple[str, ...]) -> None:
    """Refuse what does not go together before anything is read."""
    from_stdin = images.count("-") + (prompt in (None, "-"))
    if from_stdin > 1:
        raise click.UsageError("stdin holds one thing, the prompt or one image; give the rest as arguments")
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("no prompt; give it as an argument, or on stdin")


def request(prompt: str | None, images: tuple[str, ...], options: dict[str, Any]) -> Request:
    """What is asked; images are read and checked."""
    from router.types import Message, Request

    opened = _opened(images, image_limits(options))
    question = Message.of("user", *opened, _text(prompt))
    told = () if options["system"] is None else (Message.of("system", options["system"]),)
    backend = None if options["backend"] == "auto" else options["backend"]
    return Request(
        (*told, question),
        sampling(options),
        backend,
        options["min_pixels"],
        options["max_pixels"],
        _schema(options.get("json_schema")),
    )


def _schema(said: str | None) -> str | None:
    """A schema written out, or read from the file that is named."""
    if said is None or said.lstrip().startswith("{"):
        return said
    try:
        return Path(said).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise click.UsageError(f"--json-schema: '{said}' cannot be read: {reason}") from None


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


def _opened(paths: tuple[str, ...], limits: InputLimits) -> tuple[Picture, ...]:
    from router.images import open_image, read_image

    return tuple(
        read_image(sys.stdin.buffer.read(limits.max_bytes + 1), limits)
        if path == "-"
        else open_image(path, limits)
        for path in paths
    )
