"""One upright RGB image -> the rows that the vision tower reads.

Equal to the last bit to transformers' Qwen2VLImageProcessorPil with Qwen3-VL's patch size.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.base import RequestError
from backends.qwen3vl.config import CHANNELS, MERGE, PATCH, PATCH_VALUES, TEMPORAL_PATCH
from backends.qwen3vl.limits import ImageLimits

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
