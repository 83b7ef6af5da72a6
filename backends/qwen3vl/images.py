"""How a model wants its images, and one upright RGB image -> the rows that the vision tower reads.

The settings of an image processor are read from a folder as transformers does, with the defaults of its
Qwen2VLImageProcessorPil, which is Qwen3-VL's too; the rows are equal to its to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.base import BackendError, RequestError
from backends.qwen3vl.config import CHANNELS, MERGE, PATCH, PATCH_VALUES, TEMPORAL_PATCH
from backends.store import Fields

# transformers from 5.3 on saves the first, before it saved the second; where both are, the first is read
SETTINGS = ("processor_config.json", "preprocessor_config.json")

Colours: TypeAlias = tuple[float, ...]  # a number for red, green and blue


@dataclass(frozen=True)
class ImageLimits:
    """Between how many pixels an image is brought before it is cut into patches, by what, to which values."""

    min_pixels: int
    max_pixels: int
    resample: int = Image.Resampling.BICUBIC  # one of Pillow's filters
    rescale_factor: float = 1 / 255
    mean: Colours = (0.5,) * CHANNELS  # is taken off what was rescaled
    std: Colours = (0.5,) * CHANNELS  # divides what is left

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise RequestError(
                f"min_pixels must be above 0 and at most {self.max_pixels}, got {self.min_pixels}",
                param="min_pixels",
            )

    @classmethod
    def read(cls, folder: Path) -> ImageLimits:
        """Read the folder's settings; refuse a preprocessing that `patches` does not do.

        BackendError ``model_invalid``, naming the file and the field.
        """
        fields = _settings(folder)
        _check(fields)
        least, most = _pixels(fields)
        factor, mean, std = 1.0, (0.0,) * CHANNELS, (1.0,) * CHANNELS
        if fields.values.get("do_rescale", True):
            factor = _number(fields, "rescale_factor", 1 / 255)
        if fields.values.get("do_normalize", True):
            mean, std = _colours(fields, "image_mean", _CLIP_MEAN), _colours(fields, "image_std", _CLIP_STD)
        if 0 in std:
            raise fields.bad("image_std", "other than 0", 0)
        return cls(least, most, _resample(fields), factor, mean, std)


_PROCESSORS = (None, *(f"Qwen2VLImageProcessor{kind}" for kind in ("", "Fast", "Pil", "PilFast")))
_MEASURES = {  # what the tower was made for, and what transformers takes where nothing is said
    "patch_size": (PATCH, 14),
    "temporal_patch_size": (TEMPORAL_PATCH, 2),
    "merge_size": (MERGE, 2),
}
_EDGES = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _settings(folder: Path) -> Fields:
    newer, older = (folder / name for name in SETTINGS)
    if newer.is_file():
        fields = Fields.read(newer)
        if fields.values.get("image_processor") is not None:
            return fields.section("image_processor")
    if not older.is_file():
        raise BackendError(
            f"{folder} has no image settings; copy {SETTINGS[1]} or {SETTINGS[0]} from the checkpoint",
            code="model_invalid",
        )
    return Fields.read(older)


def _check(fields: Fields) -> None:
    """Refuse another image processor than Qwen3-VL's, and patches that its tower cannot read."""
    kind = fields.values.get("image_processor_type")
    if kind not in _PROCESSORS:
        raise fields.bad("image_processor_type", f"{_PROCESSORS[1]}, which is Qwen3-VL's too", kind)
    for name, (needed, default) in _MEASURES.items():
        value = fields.values.get(name, default)
        if type(value) is not int or value != needed:
            where = "" if name in fields.values else f" (left out, it is {default} to transformers)"
            raise fields.bad(name, f"{needed}{where}", value)
    if not fields.values.get("do_resize", True):
        raise fields.bad("do_resize", "true", fields.values["do_resize"])


def _pixels(fields: Fields) -> tuple[int, int]:
    """Fewest and most pixels. Where a file has both spellings, transformers goes by the older."""
    named = fields.values.get("size") is not None
    size = Fields(
        fields.path, dict(fields.section("size").values if named else _EDGES), f"{fields.prefix}size."
    )
    spelled = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    older = {name for name in spelled if fields.values.get(name) is not None}
    kept = {name: value for name, value in size.values.items() if name not in older}
    if unknown := kept.keys() - _EDGES.keys():
        raise fields.bad("size", "an object of shortest_edge and longest_edge alone", sorted(unknown))
    least, most = (
        _whole(fields, name) if name in older else _whole(size, edge) for name, edge in spelled.items()
    )
    if least > most:
        raise fields.bad("size.shortest_edge", f"at most size.longest_edge, {most}", least)
    return least, most


def _whole(fields: Fields, name: str) -> int:
    """A whole number, which may be written as a float."""
    value = fields.values.get(name)
    if isinstance(value, float) and value.is_integer():
        fields = Fields(fields.path, {name: int(value)}, fields.prefix)
    return fields.whole(name)


def _resample(fields: Fields) -> int:
    value = fields.values.get("resample", Image.Resampling.BICUBIC)
    if value is None or (isinstance(value, int) and value not in list(Image.Resampling)):
        raise fields.bad("resample", f"one of Pillow's filters, 0 to {max(Image.Resampling)}", value)
    # transformers takes whatever is no number, a filter's name too, for a bilinear filter
    return int(value) if isinstance(value, int) else Image.Resampling.BILINEAR


def _colours(fields: Fields, name: str, default: Colours) -> Colours:
    """Three numbers, or one for all three."""
    value = fields.values.get(name, list(default))
    values = value if isinstance(value, list) else [value] * CHANNELS
    if len(values) != CHANNELS:
        raise fields.bad(name, f"{CHANNELS} numbers", value)
    return tuple(_finite(fields, name, number) for number in values)


def _number(fields: Fields, name: str, default: float) -> float:
    return _finite(fields, name, fields.values.get(name, default))


def _finite(fields: Fields, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise fields.bad(name, "a number, or one for each colour", value)
    return float(value)


Grid: TypeAlias = tuple[int, int, int]  # t, h, w in patches

BLOCK = PATCH * MERGE  # both sides of a resized image are multiples of this: one token is one block
LARGEST_RATIO = 200  # of the longer side to the shorter


def resized_size(width: int, height: int, limits: ImageLimits) -> tuple[int, int]:
    """Width and height in pixels to which an image is brought: multiples of 32 that keep its shape.

    Formula: ``smart_resize`` of Qwen2-VL; a very long image may stay above ``max_pixels``, as there.
    Raises RequestError ``image_aspect_ratio`` when one side is more than 200 times the other.
    """
    check_ratio(width, height)
    sides = (width, height)
    # round() takes a half to the even number, which decides the size of an image of 48 or 80 pixels
    nearest = [round(side / BLOCK) * BLOCK for side in sides]
    if nearest[0] * nearest[1] > limits.max_pixels:
        shrink = math.sqrt((width * height) / limits.max_pixels)
        nearest = [max(BLOCK, math.floor(side / shrink / BLOCK) * BLOCK) for side in sides]
    elif nearest[0] * nearest[1] < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / (width * height))
        nearest = [math.ceil(side * grow / BLOCK) * BLOCK for side in sides]
    return nearest[0], nearest[1]


def check_ratio(width: int, height: int) -> None:
    """Raise RequestError ``image_aspect_ratio`` when one side is more than 200 times the other."""
    if max(width, height) > LARGEST_RATIO * min(width, height):
        raise RequestError(
            f"the image is {width} x {height} pixels and one side may be at most {LARGEST_RATIO} times the "
            "other; crop it or cut it into several images",
            code="image_aspect_ratio",
        )


def grid_of(width: int, height: int, limits: ImageLimits) -> Grid:
    """How many patches the image becomes: 1 frame, rows, columns. Raises as ``resized_size`` does."""
    new_width, new_height = resized_size(width, height, limits)
    return 1, new_height // PATCH, new_width // PATCH


def size_of(grid: Grid) -> tuple[int, int]:
    """Width and height in pixels at which an image of this grid is read."""
    _, down, across = grid
    return across * PATCH, down * PATCH


def image_tokens(grid: Grid) -> int:
    """How many places an image of this grid takes in the prompt."""
    return math.prod(grid) // MERGE**2


def patches(pixels: NDArray[np.uint8], limits: ImageLimits) -> tuple[NDArray[np.float32], Grid]:
    """Resize, normalise (to -1 .. 1, if the model does not say otherwise) and cut one image.

    ``pixels`` is [height, width, 3], RGB; returns float32 [t*h*w, 1536] and (t, h, w). Patches come block by
    block, the 2 x 2 of a block one after the other; a row is (channel, frame, y, x), the image being both
    frames. Raises as ``resized_size`` does.
    """
    height, width = pixels.shape[:2]
    size = resized_size(width, height, limits)
    if size != (width, height):
        pixels = np.asarray(Image.fromarray(pixels).resize(size, limits.resample))
    down, across = size[1] // BLOCK, size[0] // BLOCK
    rows = np.empty((down, across, MERGE, MERGE, CHANNELS, TEMPORAL_PATCH, PATCH, PATCH), np.float32)
    strips = pixels.reshape(down, MERGE, PATCH, across, MERGE, PATCH, CHANNELS).transpose(0, 3, 1, 4, 6, 2, 5)
    values = _values(limits.rescale_factor, limits.mean, limits.std)
    for blocks, strip in zip(rows, strips, strict=True):
        # a strip at a time stays in the processor's cache, and no float copy of the whole image is made
        places = np.ascontiguousarray(strip) if len(values) == 256 else strip + _COLOUR_OFFSETS
        blocks[:] = values.take(places, mode="clip")[..., None, :, :]
    return rows.reshape(-1, PATCH_VALUES), (1, down * MERGE, across * MERGE)


_COLOUR_OFFSETS = np.arange(CHANNELS)[:, None, None] * 256  # [channels, 1, 1]: where a colour's values begin


@lru_cache(maxsize=8)
def _values(factor: float, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """What each of the 256 values of a pixel becomes, colour after colour; once where all are alike."""
    # scaled in float64 and shifted in float32: all 256 values have the last bit that transformers gives them
    scaled = (np.arange(256) * factor).astype(np.float32)
    pairs = list(zip(mean, std, strict=True))
    alike = len(set(pairs)) == 1
    return np.concatenate(
        [(scaled - np.float32(of)) / np.float32(by) for of, by in (pairs[:1] if alike else pairs)]
    )
