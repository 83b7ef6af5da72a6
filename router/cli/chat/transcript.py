"""A conversation as JSON in the form of OpenAI's messages, its images inside as PNG; to text and back."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from PIL import Image

from backends.base import RequestError
from router.images import InputLimits, read_image
from router.types import ROLES, Message, Picture

_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)
_PNG_BYTES = 4  # a pixel; a PNG that does not compress takes a little more than 3


@dataclass(frozen=True)
class _Encoded:
    """An image that is not decoded yet, and where in the file it stands."""

    place: str
    data: bytes


_Part: TypeAlias = str | _Encoded


def to_json(messages: Iterable[Message]) -> str:
    """The messages as a JSON object with the one field ``messages``."""
    said = [{"role": message.role, "content": _content(message)} for message in messages]
    return json.dumps({"messages": said}, ensure_ascii=False, indent=1) + "\n"


def from_json(text: str, limits: InputLimits) -> tuple[Message, ...]:
    """What ``to_json`` wrote, or a bare list of messages; no image is decoded before all else is in order.

    ``limits`` hold, but a PNG may have all the bytes that its pixels need. RequestError says what is wrong,
    and where.
    """
    said = [_message(entry, f"messages[{index}]") for index, entry in enumerate(_entries(text))]
    count = sum(isinstance(part, _Encoded) for _, parts in said for part in parts)
    if count > limits.max_images:
        raise RequestError(
            f"it holds {count} images; at most {limits.max_images} are read", code="too_many_images"
        )
    limits = replace(limits, max_bytes=max(limits.max_bytes, _PNG_BYTES * limits.max_pixels))
    return tuple(
        Message(role, tuple(_image(part, limits) if isinstance(part, _Encoded) else part for part in parts))
        for role, parts in said
    )


def _content(message: Message) -> str | list[dict[str, Any]]:
    if len(message.parts) == 1 and isinstance(message.parts[0], str):
        return message.parts[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _url(part)}}
        for part in message.parts
    ]


def _url(image: Picture) -> str:
    file = io.BytesIO()
    Image.fromarray(image.pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _entries(text: str) -> list[Any]:
    try:
        said = json.loads(text, object_pairs_hook=_fields)
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"it is not JSON of a conversation: {problem:.120}", code="invalid_json") from None
    entries = _of(said, "the file", "messages")["messages"] if isinstance(said, dict) else said
    if not isinstance(entries, list):
        _refuse("messages", "a list of messages", entries)
    return entries


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("it names a field twice")
    return fields


def _message(said: Any, place: str) -> tuple[Any, tuple[_Part, ...]]:
    fields = _of(said, place, "role", "content")
    role, content = fields["role"], fields["content"]
    if role not in ROLES:
        _refuse(f"{place}.role", f"one of {', '.join(ROLES)}", role)
    if isinstance(content, str):
        return role, (content,)
    if not isinstance(content, list):
        _refuse(f"{place}.content", "a text or a list of parts", content)
    return role, tuple(_part(part, f"{place}.content[{index}]") for index, part in enumerate(content))


def _part(said: Any, place: str) -> _Part:
    kind = said.get("type") if isinstance(said, dict) else None
    if kind == "text":
        text = _of(said, place, "type", "text")["text"]
        return text if isinstance(text, str) else _refuse(f"{place}.text", "a text", text)
    if kind != "image_url":
        _refuse(f"{place}.type", "text or image_url", kind)
    image = _of(_of(said, place, "type", "image_url")["image_url"], f"{place}.image_url", "url")
    return _Encoded(f"{place}.image_url.url", _bytes(image["url"], f"{place}.image_url.url"))


def _bytes(url: Any, place: str) -> bytes:
    start = _URL.match(url) if isinstance(url, str) else None
    if start is None:
        _refuse(place, "data:image/png;base64,... (images elsewhere are not fetched)", url)
    try:
        return base64.b64decode(url[start.end() :], validate=True)
    except ValueError:
        raise RequestError(f"{place} is not valid base64", code="invalid_image") from None


def _image(encoded: _Encoded, limits: InputLimits) -> Picture:
    try:
        return read_image(encoded.data, limits)
    except RequestError as error:
        raise RequestError(f"{encoded.place}: {error}", code=error.code) from None


def _of(said: Any, place: str, *names: str) -> dict[str, Any]:
    """An object that has all of these fields and no other."""
    if not isinstance(said, dict):
        _refuse(place, f"an object with {' and '.join(names)}", said)
    if missing := [name for name in names if name not in said]:
        raise RequestError(f"{place} has no {missing[0]}")
    if others := [name for name in said if name not in names]:
        raise RequestError(f"{place} has {others[0]!r:.40}, which is not read; take it out")
    return said


def _refuse(place: str, wanted: str, got: Any) -> NoReturn:
    shown = f"{got!r:.60}" if isinstance(got, str | int | float | None) else f"a {type(got).__name__}"
    raise RequestError(f"{place} must be {wanted}, got {shown}")


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
