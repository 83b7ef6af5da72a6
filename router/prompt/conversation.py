"""What every conversation must be before a model's own files see it, and the form in which they see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backends.base import RequestError
from router.types import Message, Picture

MAX_PARTS = 10_000  # in one request, empty messages counted: about a second of rendering
MAX_CHARS = 1_000_000  # in one request: what fills the longest context at four a token, or a second of work


def check(messages: tuple[Message, ...], max_chars: int, max_images: int, context: int) -> None:
    """Raise RequestError for what no model could answer, or what would take too long to read."""
    if not messages:
        raise RequestError("there is no message to answer; give at least one", param="messages")
    for index, message in enumerate(messages[1:], 1):
        if message.role == "system":
            # templates differ in what they do with it: that of Qwen3-VL-Instruct silently leaves it out
            raise RequestError(
                "only the first message may be a system message", param=f"messages[{index}].role"
            )
    _check_amounts(messages, max_chars, max_images, context)
    for name, part in named_parts(messages):
        if isinstance(part, str):
            _check_text(part, name)


def named_parts(messages: tuple[Message, ...]) -> Iterator[tuple[str, str | Picture]]:
    """Every part, with the name that errors give it."""
    for index, message in enumerate(messages):
        for place, part in enumerate(message.parts):
            yield f"messages[{index}].content[{place}]", part


def chars_of(message: Message) -> int:
    """How many characters the texts of a message have together."""
    return sum(len(part) for part in message.parts if isinstance(part, str))


def as_templates_read(message: Message) -> dict[str, Any]:
    """A message in the form of transformers: a single text as a string, anything else as a list."""
    if not message.images and len(message.parts) < 2:
        return {"role": message.role, "content": "".join(p for p in message.parts if isinstance(p, str))}
    content = [
        {"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message.parts
    ]
    return {"role": message.role, "content": content}


def too_long(message: str, param: str = "messages") -> RequestError:
    """The error for what does not fit into the context."""
    return RequestError(message, code="context_length_exceeded", param=param)


def _check_amounts(messages: tuple[Message, ...], max_chars: int, max_images: int, context: int) -> None:
    images = sum(len(message.images) for message in messages)
    if images > max_images:
        raise RequestError(
            f"the conversation has {images} images; at most {max_images} are read in one request",
            code="too_many_images",
            param="messages",
        )
    parts = sum(max(1, len(message.parts)) for message in messages)
    if parts > min(MAX_PARTS, context):
        raise too_long(
            f"the conversation has {parts} parts; at most {MAX_PARTS} are read, "
            f"and the context is {context} tokens"
        )
    chars = sum(map(chars_of, messages))
    if chars > max_chars:
        raise too_long(
            f"the conversation has {chars} characters; at most {max_chars} are read, "
            f"and the context is {context} tokens: shorten the prompt"
        )


def _check_text(text: str, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the text has half of a surrogate pair at character {error.start}; send valid Unicode",
            code="invalid_encoding",
            param=name,
        ) from None
