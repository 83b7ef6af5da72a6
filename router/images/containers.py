"""What an image file says about itself, read before any decoder sees it.

The walk costs a few milliseconds and bounds what a decoder can be made to do: 20 MB can hold 600,000 scans of
a large JPEG (hours) or 1.7 million empty PNG chunks (ten seconds). Only the parts that make up the first
frame are handed on; comments, profiles, EXIF and thumbnails are left behind.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from backends.base import RequestError

Kind: TypeAlias = Literal["PNG", "JPEG", "WebP", "GIF", "BMP"]

MOST_PARTS = 20_000  # chunks, segments or blocks of a file; a 20 MB PNG written 4 KB at a time has 5,000
MOST_SCANS = 100  # of a JPEG; progressive ones have about 10
DAMAGED = "is damaged or cut short; save or download it again"


@dataclass(frozen=True)
class Container:
    """The first frame of an image file, not decoded yet."""

    kind: Kind
    width: int  # as stored, in pixels
    height: int
    data: bytes  # a file of the same kind that holds this frame
    orientation: int = 1  # EXIF: 1 upright, 2-8 how it must be turned

    @classmethod
    def read(cls, data: bytes) -> Container:
        """Tell the kind by content and read the size; raise RequestError ``invalid_image``."""
        if not data:
            raise invalid("is empty; save or download it again")
        for start, walk in _WALKS:
            if start.match(data):
                try:
                    return walk(data)
                except (struct.error, IndexError):
                    raise invalid(DAMAGED) from None
        raise invalid("is not a PNG, JPEG, WebP, GIF or BMP file; save it as one of these")


def invalid(what: str) -> RequestError:
    """The error for an image that cannot be read; ``what`` is a fixed text, never a decoder's own words."""
    return RequestError(f"the image {what}", code="invalid_image")


def orientation_in(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where the block does not say or is damaged."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if (tag, kind) == (0x0112, 3):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _png(data: bytes) -> Container:
    first, width, height = struct.unpack_from(">4sII", data, 12)
    if first != b"IHDR":
        raise invalid(DAMAGED)
    view, orientation, place = memoryview(data), 1, 8
    kept = [view[:place]]
    for _ in range(MOST_PARTS):
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise invalid(DAMAGED)
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[place:end])
        elif name == b"eXIf":
            orientation = orientation_in(data[place + 8 : end - 4])
        if name == b"IEND":
            return Container("PNG", width, height, b"".join(kept), orientation)
        place = end
    raise invalid(f"has more than {MOST_PARTS} parts; save it again with another program")


# a marker that ends a scan or starts a segment: not a stuffed zero, a restart or a fill byte
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")


def _jpeg(data: bytes) -> Container:
    view, place, scans = memoryview(data), 2, 0
    kept, size, exif = [view[:place]], (0, 0), b""
    for _ in range(MOST_PARTS):
        match = _MARKER.search(data, place)
        start = match.start() if match else len(data)
        kept.append(view[place:start])  # after a scan's header: the scan
        if match is None or match[1] == b"\xd9":
            # no end marker is made up: the decoder must see that the file is cut short
            kept.append(view[start : start + 2])
            break
        marker = match[1][0]
        place = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
        if marker not in _SEGMENTS or (marker in _FRAMES and size != (0, 0)):
            raise invalid(DAMAGED)
        if marker in _FRAMES:
            size = struct.unpack_from(">HH", data, start + 5)
        elif marker == _APP1 and not exif and data.startswith(b"Exif\0\0", start + 4):
            exif = data[start + 4 : place]
        if marker not in _DROPPED:
            kept.append(view[start:place])
        scans += marker == _SCAN
        if scans > MOST_SCANS:
            raise invalid(f"has more than {MOST_SCANS} scans; save it again with another program")
    return Container("JPEG", size[1], size[0], b"".join(kept), orientation_in(exif))


_SCAN, _APP1 = 0xDA, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE)) - {0xC8}
# JFIF (APP0) and Adobe (APP14) say how colours are stored; the other application segments do not
_DROPPED = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))


def _gif(data: bytes) -> Container:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = _after_table(13, flags)
    table, control, parts = data[13:place], b"", 0
    while data[place : place + 1] == b"!":
        start, place = place, place + 2
        while (length := data[place]) and parts < MOST_PARTS:
            place, parts = place + 1 + length, parts + 1
            if place >= len(data):
                raise invalid(DAMAGED)
        place += 1
        if data[start + 1] == 0xF9:  # says which colour is transparent
            control = data[start:place]
    if data[place : place + 1] != b"," or parts >= MOST_PARTS:
        raise invalid(DAMAGED)
    left, top, across, down = struct.unpack_from("<HHHH", data, place + 1)
    # a frame may reach beyond the screen; decoders then widen the image
    width, height = max(width, left + across), max(height, top + down)
    if max(width, height) > 0xFFFF:
        raise invalid(DAMAGED)
    screen = data[:6] + struct.pack("<HH", width, height) + data[10:13]
    return Container("GIF", width, height, b"".join((screen, table, control, memoryview(data)[place:])))


def _after_table(place: int, flags: int) -> int:
    return place + (3 << (flags & 7) + 1 if flags & 0x80 else 0)


def _webp(data: bytes) -> Container:
    size = _webp_size(data)
    place, orientation = 12, 1
    for _ in range(MOST_PARTS):
        if place + 8 > len(data):
            return Container("WebP", *size, data, orientation)
        name, length = struct.unpack_from("<4sI", data, place)
        if name == b"EXIF":
            orientation = orientation_in(data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    raise invalid(f"has more than {MOST_PARTS} parts; save it again with another program")


def _webp_size(data: bytes) -> tuple[int, int]:
    name = data[12:16]
    if name == b"VP8X":
        wide, wider, high, higher = struct.unpack_from("<HBHB", data, 24)
        return 1 + wide + (wider << 16), 1 + high + (higher << 16)
    if name == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise invalid(DAMAGED)


def _bmp(data: bytes) -> Container:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Container("BMP", width, height, data)
    width, height, compression = struct.unpack_from("<iixxxxI", data, 18)
    if compression not in (0, 3):  # run lengths would be unpacked in Python, byte by byte
        raise invalid("is a compressed BMP; save it as PNG")
    return Container("BMP", width, abs(height), data)


_WALKS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Container]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"RIFF.{4}WEBPVP8", re.DOTALL), _webp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), _bmp),
)
