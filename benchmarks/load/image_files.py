"""Image files made in memory: good ones, and every way of being bad that a reader must survive."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def photo(width: int = 53, height: int = 37) -> Image.Image:
    """Soft colours that no two corners share, so that a turn, a swap or a cut is seen."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [200 * across + 20, 220 * down + 10, 120 * (across + down)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file, as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """One of a PNG, with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *, depth: int = 8, body: bytes | None = None, extra: bytes = b"") -> bytes:
    """A grey PNG of any declared size; all black unless a compressed body is given."""
    if body is None:
        body = zlib.compress(bytes((width * depth + 15) // 8 * height), 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg_declaring(width: int, height: int) -> bytes:
    """A small JPEG that says it has this size."""
    data = bytearray(encoded(photo(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_declaring(width: int, height: int) -> bytes:
    """A small GIF that says it has this size."""
    data = bytearray(encoded(photo(), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def webp_declaring(width: int, height: int) -> bytes:
    """A small WebP that says it has this size."""
    data = bytearray(encoded(photo().convert("RGBA"), "WEBP", exif=Image.Exif().tobytes() + b"x"))
    assert data[12:16] == b"VP8X"
    data[24:30] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return bytes(data)


def bmp_declaring(width: int, height: int) -> bytes:
    """A small BMP that says it has this size."""
    data = bytearray(encoded(photo(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def progressive_with(extra_scans: int) -> bytes:
    """A progressive JPEG that says its last scan again and again: each is a walk over the whole image."""
    data = encoded(photo(64, 64), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * extra_scans + data[-2:]


def flipped(data: bytes, place: int) -> bytes:
    """With some bits of one byte turned over."""
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def bad_files() -> dict[str, bytes]:
    """Name -> bytes that hold no whole image of the five kinds."""
    image = photo()
    good = {kind: encoded(image, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")}
    bad = {
        "empty": b"",
        "one byte": b"\x89",
        "text": b"hello, I am an image",
        "html": b"<!DOCTYPE html><img src=x>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "pdf": b"%PDF-1.7\n",
        "tiff": encoded(image, "TIFF"),
        "ico": encoded(image, "ICO"),
        "ppm": encoded(image, "PPM"),
        "jpeg 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64),
        "zeros": bytes(1000),
        "png signature only": good["PNG"][:8],
        "png without end": good["PNG"][:-12],
        "png with a flipped bit": flipped(good["PNG"], good["PNG"].index(b"IDAT") + 30),
        "png with a flipped end": flipped(good["PNG"], good["PNG"].rindex(b"IEND") - 11),
        "png with a bad checksum": flipped(good["PNG"], 30),
        "png of no width": png(0, 9),
        "png of no height": png(9, 0),
        "png with too little data": png(99, 99, body=zlib.compress(bytes(99))),
        "png that is not compressed": png(9, 9, body=b"not deflate"),
        "png chunk beyond the end": good["PNG"][:33] + b"\x7f\xff\xff\xffIDAT" + good["PNG"][41:],
        "png starting with data": good["PNG"][:8] + good["PNG"][33:],
        "jpeg markers only": b"\xff\xd8\xff\xd9",
        "jpeg without tables": b"\xff\xd8" + good["JPEG"][good["JPEG"].index(b"\xff\xc0") :],
        "jpeg of no height": jpeg_declaring(9, 0),
        "jpeg segment beyond the end": b"\xff\xd8\xff\xe0\xff\xff" + good["JPEG"][6:],
        "jpeg with two sizes": good["JPEG"].replace(b"\xff\xc0", b"\xff\xc0\0\x02\xff\xc0", 1),
        "webp riff only": b"RIFF\x04\x00\x00\x00WEBP",
        "webp of unknown code": b"RIFF\x20\x00\x00\x00WEBPVP8Z" + bytes(30),
        "webp of no width": good["WEBP"][:26] + b"\0\0\0\0" + good["WEBP"][30:],
        "gif header only": good["GIF"][:13],
        "gif without an image": good["GIF"][:10] + b"\0\0\0;",
        "gif with an endless comment": good["GIF"][:10] + b"\0\0\0!\xfe" + b"\x01x" * 50,
        "bmp header only": good["BMP"][:20],
        "bmp of unknown header": good["BMP"][:14] + b"\x99" + good["BMP"][15:],
        "bmp with run lengths": good["BMP"][:30] + b"\x01" + good["BMP"][31:],
    }
    for kind, data in good.items():
        for part in (0.1, 0.5, 0.9):
            bad[f"{kind.lower()} cut at {part:.0%}"] = data[: int(len(data) * part)]
    return bad
