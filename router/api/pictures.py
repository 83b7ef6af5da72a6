"""Where the pictures of a conversation come from: data inside the body, or an address."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Literal, TypeAlias

from backends.base import RequestError

Detail: TypeAlias = Literal["auto", "low", "high"]

LOW_PIXELS = 512 * 512
"""What "detail": "low" shrinks pictures to; "high" and "auto" read them as large as they may be."""

_DATA = re.compile(r"data:image/[\w.+-]{1,40}(?:;[\w=.+-]{1,40})*;base64,", re.IGNORECASE | re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")  # long enough that no path or name is taken for data
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A picture as a client gave it."""

    param: str  # where it stands in the body
    data: str | None  # base64
    url: str | None  # http or https, where ``data`` is None
    detail: Detail = "auto"

    def decoded(self, max_bytes: int) -> bytes:
        """The encoded picture. RequestError: it is too large, or not base64."""
        assert self.data is not None
        size = len(self.data) * 3 // 4
        if size > max_bytes:
            raise RequestError(
                f"the picture has about {size:,} bytes; at most {max_bytes:,} are read: make it smaller",
                code="image_too_large",
                param=self.param,
            )
        try:
            return b64decode(self.data, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(
                "the picture is not valid base64; encode it again", code="invalid_image", param=self.param
            ) from None


def source(address: str, param: str, detail: Detail = "auto") -> Source:
    """What ``address`` means: a data URI, base64 alone, or a URL.

    RequestError ``unsupported_image_url``: anything else; no file is ever opened because of a request.
    """
    if (start := _DATA.match(address)) is not None:
        return Source(param, address[start.end() :], None, detail)
    if _URL.match(address):
        return Source(param, None, address, detail)
    if _BARE.fullmatch(address):
        return Source(param, address, None, detail)
    raise RequestError(
        "the picture must be a data URI, such as data:image/png;base64,iVBOR...",
        code="unsupported_image_url",
        param=param,
    )


def max_pixels(sources: tuple[Source, ...], said: int | None) -> int | None:
    """How large pictures are read: as said, else small if every one of them asks for low detail."""
    if said is None and sources and all(source.detail == "low" for source in sources):
        return LOW_PIXELS
    return said
