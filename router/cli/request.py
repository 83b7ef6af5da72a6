"""One question from a command's arguments: its text, its images, and how it is to be answered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import RequestOptions

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


def read_request(prompt: str | None, options: RequestOptions, json_schema: str | None = None) -> Request:
    """The request that a command's options make; RequestError, click.UsageError: a part cannot be read."""
    from router.types import Message, Request

    conversation = options.conversation
    images = _images(conversation.images, conversation.to_limits())
    question = Message.of("user", *images, _text(prompt))
    system = () if conversation.system is None else (Message.of("system", conversation.system),)
    return Request(
        (*system, question),
        options.sampling.to_sampling(),
        options.router.named_backend,
        conversation.min_pixels,
        conversation.max_pixels,
        _schema(json_schema),
    )


def _schema(text: str | None) -> str | None:
    """A schema written out, or read from the file that is named."""
    if text is None or text.lstrip().startswith("{"):
        return text
    try:
        return Path(text).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise click.UsageError(f"--json-schema: '{text}' cannot be read: {reason}") from None


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


def _images(paths: tuple[str, ...], limits: InputLimits) -> tuple[Picture, ...]:
    from router.images import open_image, read_image

    return tuple(
        read_image(sys.stdin.buffer.read(limits.max_bytes + 1), limits)
        if path == "-"
        else open_image(path, limits)
        for path in paths
    )
