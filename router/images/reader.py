"""Bytes, a file or a PIL image -> an image as every backend sees it.

A file's size in bytes and in pixels is checked against `InputLimits` before a decoder sees it, and a decoder
sees nothing but what the first frame needs (``containers.py``).
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from backends.base import RequestError
from backends.qwen3vl import check_ratio
from router.images.containers import DAMAGED, Container, invalid, orientation_in
from router.types import Picture

DEFAULT_MAX_PIXELS = 40_000_000
STRIP_PIXELS = 1 << 20  # pixels converted at a time: the only large arrays are the decoder's and the answer


@dataclass(frozen=True)
class InputLimits:
    """What is accepted; ``max_images`` is for whoever gathers the images of a conversation."""

    max_bytes: int = 20_000_000  # of an encoded image
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_images: int = 8
    useful_pixels: int = 16_777_216  # more than the model looks at; larger JPEGs may be decoded smaller

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise RequestError(f"{name} must be above 0, got {value}", param=name)


def read_image(data: bytes, limits: InputLimits = InputLimits()) -> Picture:
    """Read a PNG, JPEG, WebP, GIF or BMP file, told by content; of an animation, the first frame.

    EXIF orientation is applied, 16-bit grey keeps its upper 8 bits, transparency goes over white.
    With ``max_pixels`` raised, a JPEG above the default is decoded at 1/2, 1/4 or 1/8 of its size as long as
    ``useful_pixels`` remain. Raises RequestError ``invalid_image``, ``image_too_large`` or
    ``image_aspect_ratio``, whose text is fixed and never quotes the file.
    """
    _check_bytes(len(data), limits)
    container = Container.read(data)
    _check_size(container.width, container.height, limits)
    try:
        with _DECODERS[container.kind](io.BytesIO(container.data)) as image:
            if image.size != (container.width, container.height):
                raise invalid(DAMAGED)
            _shrink(image, limits)
            image.load()
            return Picture(_pixels(image, container.orientation))
    except _DECODER_ERRORS:
        raise invalid(DAMAGED) from None


def open_image(path: str | os.PathLike[str], limits: InputLimits = InputLimits()) -> Picture:
    """Read an image from a regular file, or a link to one; see ``read_image``. Errors name the file."""
    try:
        return read_image(_read_file(path, limits), limits)
    except RequestError as error:
        raise RequestError(f"{os.fspath(path)!r}: {error}", code=error.code) from None


def from_pil(image: Image.Image, limits: InputLimits = InputLimits()) -> Picture:
    """Take a PIL image of any mode but floating point, turned as its EXIF says; see ``read_image``."""
    _check_size(*image.size, limits)
    try:
        image.load()
        exif = image.info.get("exif")
        turn = orientation_in(exif) if isinstance(exif, bytes) else image.getexif().get(_ORIENTATION_TAG, 1)
        return Picture(_pixels(image, turn))
    except _DECODER_ERRORS:
        raise invalid(DAMAGED) from None


_ORIENTATION_TAG = 0x0112
# the classes themselves, not Image.open(): no other format can be reached, and its size warnings are not ours
_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
# all that Pillow's decoders were seen to raise for damaged files
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def _read_file(path: str | os.PathLike[str], limits: InputLimits) -> bytes:
    try:
        with open(path, "rb", opener=_open_now) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise invalid("is not a regular file; name an image's file")
            _check_bytes(state.st_size, limits)
            return file.read(limits.max_bytes + 1)
    except OSError as error:
        raise invalid(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise invalid("cannot be read: the name holds a character that no file name may hold") from None


def _open_now(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to would hold us here


def _check_bytes(size: int, limits: InputLimits) -> None:
    if size > limits.max_bytes:
        raise RequestError(
            f"the image has {size:,} bytes; at most {limits.max_bytes:,} are read: make it smaller",
            code="image_too_large",
        )


def _check_size(width: int, height: int, limits: InputLimits) -> None:
    if width < 1 or height < 1:
        raise invalid(DAMAGED)
    if width * height > limits.max_pixels:
        raise RequestError(
            f"the image is {width} x {height}, {width * height:,} pixels; at most {limits.max_pixels:,} "
            "are read: make it smaller",
            code="image_too_large",
        )
    check_ratio(width, height)


def _shrink(image: Image.Image, limits: InputLimits) -> None:
    """Let libjpeg decode an image that is above the default limit at a fraction of its size."""
    if image.width * image.height <= DEFAULT_MAX_PIXELS:
        return
    for fraction in (8, 4, 2):
        width, height = image.width // fraction, image.height // fraction
        if width * height >= limits.useful_pixels:
            image.draft(None, (width, height))  # does nothing to other kinds
            return


def _pixels(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Upright RGB [height, width, 3], contiguous and read-only; written strip by strip, already turned."""
    turned, down, across = _TURNS.get(orientation, _TURNS[1])
    width, height = image.size
    upright = np.empty((width, height, 3) if turned else (height, width, 3), np.uint8)
    stored = (upright.swapaxes(0, 1) if turned else upright)[::down, ::across]
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        stored[top:bottom] = _rgb(image.crop((0, top, width, bottom)))
    upright.flags.writeable = False
    return upright


# EXIF orientation -> whether rows and columns change places; steps through the upright rows and columns
_TURNS: dict[int, tuple[bool, int, int]] = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, -1, 1),
    7: (True, -1, -1),
    8: (True, 1, -1),
}


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise invalid("has floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return _grey(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """The upper 8 of 16 bits; Pillow's own conversion would make all above 255 white."""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 0xFFFF:
        raise invalid("has more than 16 bits a channel; save it with 8 or 16")
    grey = (levels >> 8).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[levels == clear] = 255
    return np.repeat(grey[..., None], 3, axis=2)
