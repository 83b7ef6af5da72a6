"""OpenAI's messages, as JSON, <-> ours: one reading for the server's bodies and for transcripts, one writing.

::

    {"role": "user",
     "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR..."}},
                 {"type": "text", "text": "Which colours?"}]}

Whoever reads checks types first: a server's body by its model, a file by ``read_messages``.
"""

from __future__ import annotations

import binascii
import io
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from backends.base import RequestError
from router.types import ROLES, Message, Picture, Role

Detail: TypeAlias = Literal["auto", "low", "high"]

_DATA = re.compile(r"data:image/[\w.+-]{1,40}(?:;[\w=.+-]{1,40})*;base64,", re.IGNORECASE | re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")  # long enough that no path or name is taken for data
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class ImageSource:
    """An image as a client gave it."""

    param: str  # where it stands in the body
    data: str | None  # base64
    url: str | None  # http or https, where ``data`` is None
    detail: Detail = "auto"

    def decoded(self, max_bytes: int) -> bytes:
        """The encoded image. RequestError: it is too large, or not base64."""
        assert self.data is not None
        size = len(self.data) * 3 // 4
        if size > max_bytes:
            raise RequestError(
                f"the image has about {size:,} bytes; at most {max_bytes:,} are read: make it smaller",
                code="image_too_large",
                param=self.param,
            )
        try:
            return b64decode(self.data, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(
                "the image is not valid base64; encode it again", code="invalid_image", param=self.param
            ) from None


def image_source(address: str, param: str, detail: Detail = "auto") -> ImageSource:
    """What ``address`` means: a data URI, base64 alone, or a URL.

    RequestError ``unsupported_image_url``: anything else; no file is ever opened because of a request.
    """
    if (start := _DATA.match(address)) is not None:
        return ImageSource(param, address[start.end() :], None, detail)
    if _URL.match(address):
        return ImageSource(param, None, address, detail)
    if _BARE.fullmatch(address):
        return ImageSource(param, address, None, detail)
    raise RequestError(
        "the image must be a data URI, such as data:image/png;base64,iVBOR...",
        code="unsupported_image_url",
        param=param,
    )


@dataclass(frozen=True)
class ParsedMessage:
    """One message, its images not read yet."""

    role: Role
    parts: tuple[str | ImageSource, ...]

    @property
    def sources(self) -> tuple[ImageSource, ...]:
        """Where its images come from, in order."""
        return tuple(part for part in self.parts if isinstance(part, ImageSource))

    def message(self, read: Callable[[ImageSource], Picture]) -> Message:
        """The message, each image as ``read`` gives it."""
        return Message(self.role, tuple(p if isinstance(p, str) else read(p) for p in self.parts))


def parse_message(entry: Mapping[str, Any], param: str) -> ParsedMessage:
    """A message whose types were checked; developers speak as the system.

    RequestError ``unsupported_image_url``: see ``image_source``.
    """
    role: Role = "system" if entry["role"] == "developer" else entry["role"]
    content = entry["content"]
    if isinstance(content, str):
        return ParsedMessage(role, (content,))
    return ParsedMessage(role, tuple(_part(part, f"{param}.content[{i}]") for i, part in enumerate(content)))


def _part(part: Mapping[str, Any], param: str) -> str | ImageSource:
    if part["type"] in ("text", "input_text"):
        text: str = part["text"]
        return text
    image = part["image_url"]
    if isinstance(image, str):
        image = {"url": image}
    return image_source(image["url"], param, image.get("detail") or part.get("detail") or "auto")


def read_messages(entries: Sequence[Any]) -> tuple[ParsedMessage, ...]:
    """Messages in the form that ``message_json`` writes, and no other; images are data URIs.

    RequestError says what is another, and where.
    """
    for index, entry in enumerate(entries):
        _check_message(entry, f"messages[{index}]")
    return tuple(parse_message(entry, f"messages[{index}]") for index, entry in enumerate(entries))


def _check_message(entry: Any, place: str) -> None:
    fields = check_fields(entry, place, "role", "content")
    role, content = fields["role"], fields["content"]
    if role not in ROLES:
        refuse(f"{place}.role", f"one of {', '.join(ROLES)}", role)
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        refuse(f"{place}.content", "a text or a list of parts", content)
    for index, part in enumerate(content):
        _check_part(part, f"{place}.content[{index}]")


def _check_part(part: Any, place: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        text = check_fields(part, place, "type", "text")["text"]
        if not isinstance(text, str):
            refuse(f"{place}.text", "a text", text)
        return
    if kind != "image_url":
        refuse(f"{place}.type", "text or image_url", kind)
    image = check_fields(part, place, "type", "image_url")["image_url"]
    url = check_fields(image, f"{place}.image_url", "url")["url"]
    if not isinstance(url, str) or _DATA.match(url) is None:
        refuse(f"{place}.image_url.url", "data:image/png;base64,... (images elsewhere are not fetched)", url)


def check_fields(value: Any, place: str, *names: str) -> dict[str, Any]:
    """An object that has all of these fields and no other; RequestError otherwise."""
    if not isinstance(value, dict):
        refuse(place, f"an object with {' and '.join(names)}", value)
    if missing := [name for name in names if name not in value]:
        raise RequestError(f"{place} has no {missing[0]}")
    if others := [name for name in value if name not in names]:
        raise RequestError(f"{place} has {others[0]!r:.40}, which is not read; take it out")
    return value


def refuse(place: str, wanted: str, got: Any) -> NoReturn:
    """Raise RequestError: at ``place`` stands something else than what is wanted."""
    shown = f"{got!r:.60}" if isinstance(got, str | int | float | None) else f"a {type(got).__name__}"
    raise RequestError(f"{place} must be {wanted}, got {shown}")


def message_json(message: Message) -> dict[str, Any]:
    """A message as any OpenAI-compatible server takes it: a text alone stands for itself."""
    if len(message.parts) == 1 and isinstance(message.parts[0], str):
        return {"role": message.role, "content": message.parts[0]}
    return {"role": message.role, "content": [_part_json(part) for part in message.parts]}


def _part_json(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": data_uri(_png(part))}}


def data_uri(png: bytes) -> str:
    """The bytes of a PNG file as an address that holds them."""
    return "data:image/png;base64," + b64encode(png).decode("ascii")


def _png(image: Picture) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # as PNG, which changes no pixel; more compression takes long, and makes a photograph hardly smaller
    Image.fromarray(image.pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
