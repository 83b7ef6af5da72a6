"""A conversation as JSON in the form of OpenAI's messages, its images inside as PNG; to text and back."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.base import RequestError
from router.api.messages import ImageSource, check_fields, message_json, read_messages, refuse
from router.images import InputLimits, read_image
from router.types import Message, Picture

_PNG_BYTES = 4  # a pixel; a PNG that does not compress takes a little more than 3


def to_json(messages: Iterable[Message]) -> str:
    """The messages as a JSON object with the one field ``messages``."""
    conversation = {"messages": [message_json(message) for message in messages]}
    return json.dumps(conversation, ensure_ascii=False, indent=1) + "\n"


def from_json(text: str, limits: InputLimits) -> tuple[Message, ...]:
    """What ``to_json`` wrote, or a bare list of messages; no image is decoded before all else is in order.

    ``limits`` hold, but a PNG may have all the bytes that its pixels need. RequestError says what is wrong,
    and where.
    """
    messages = read_messages(_entries(text))
    files = {source: _file(source) for message in messages for source in message.sources}
    if len(files) > limits.max_images:
        raise RequestError(
            f"it holds {len(files)} images; at most {limits.max_images} are read", code="too_many_images"
        )
    limits = replace(limits, max_bytes=max(limits.max_bytes, _PNG_BYTES * limits.max_pixels))
    return tuple(
        message.message(lambda source: _image(source, files[source], limits)) for message in messages
    )


def _entries(text: str) -> list[Any]:
    try:
        conversation = json.loads(text, object_pairs_hook=_fields)
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"it is not JSON of a conversation: {problem:.120}", code="invalid_json") from None
    if isinstance(conversation, dict):
        conversation = check_fields(conversation, "the file", "messages")["messages"]
    if not isinstance(conversation, list):
        refuse("messages", "a list of messages", conversation)
    return conversation


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("it names a field twice")
    return fields


def _file(source: ImageSource) -> bytes:
    try:
        return base64.b64decode(source.data or "", validate=True)
    except ValueError:
        raise RequestError(f"{_place(source)} is not valid base64", code="invalid_image") from None


def _image(source: ImageSource, file: bytes, limits: InputLimits) -> Picture:
    try:
        return read_image(file, limits)
    except RequestError as error:
        raise RequestError(f"{_place(source)}: {error}", code=error.code) from None


def _place(source: ImageSource) -> str:
    return f"{source.param}.image_url.url"


LARGEST = 512_000_000  # bytes; eight photographs of 12 megapixels take about 200 million


def write(file: str, text: str, *, over: bool) -> Path:
    """Write beside it and rename; only its owner may read it. RequestError: it is there, or cannot be."""
    data = text.encode("utf-8")
    if len(data) > LARGEST:
        raise RequestError(f"it would have {len(data):,} bytes, and {LARGEST:,} are read back at most")
    try:
        target = Path(file).resolve()  # what a link leads to is replaced, not the link
        if target.is_dir():
            raise RequestError(f"{file!r} is a folder; name a file")
        if target.exists() and not over:
            raise RequestError(f"{file!r} is there already; /save! replaces it")
        _replace(target, data)
    except OSError as error:
        raise RequestError(f"{file!r} cannot be written: {error.strerror}", code="not_writable") from None
    except (ValueError, RuntimeError):  # a null character; links in a circle
        raise RequestError(f"{file!r} cannot be the name of a file", code="not_writable") from None
    return target


def read(file: str) -> str:
    """The text of a regular file. RequestError: it is not one, too large, or not UTF-8."""
    try:
        # a pipe that nobody writes to would hold us here
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise RequestError(f"{file!r} is not a regular file")
            if state.st_size > LARGEST:
                raise RequestError(f"{file!r} has {state.st_size:,} bytes; at most {LARGEST:,} are read")
            return stream.read(LARGEST + 1).decode("utf-8")
    except OSError as error:
        raise RequestError(f"{file!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{file!r} is not UTF-8 (byte {error.start})", code="invalid_encoding") from None
    except ValueError:
        raise RequestError(f"{file!r} cannot be the name of a file") from None


def _replace(target: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(
        prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent
    )
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
