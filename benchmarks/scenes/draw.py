"""Draws scenes: a picture, the facts that are true of it, and which region each pixel belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.scenes.palette import NAMES, shade
from benchmarks.scenes.weather import weather

Index = NDArray[np.uint8]  # [height, width]: the region of each pixel, NOWHERE for lines between regions
Pixels = NDArray[np.uint8]  # [height, width, 3]
NOWHERE = 255
SHAPES = ("circle", "square", "triangle")
KINDS = ("single", "quadrants", "rows", "columns", "gradient", "checkerboard", "shapes")
Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Region:
    """One colour's place: its name and, when it is a figure, its shape."""

    colour: str
    shape: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is true of a scene; regions are in reading order, the background of shapes last."""

    kind: str
    regions: tuple[Region, ...]
    across: bool = True  # a gradient runs left to right, otherwise top to bottom


@dataclass(frozen=True)
class Scene:
    """A picture, its facts and its region map."""

    picture: Image.Image
    facts: Facts
    index: Index


def scene(kind: str, size: Size, random: Random, clean: bool = False) -> Scene:
    """One scene of a kind at (height, width) pixels; the same random state gives the same scene."""
    facts, index = _PAINTERS[kind](size, random)
    table = np.array([shade(region.colour, random) for region in facts.regions], np.float32)
    if kind == "gradient":
        pixels = _blend(table, size, facts.across)
    else:
        index = index if clean else _lines(index, kind, random)
        line = np.array(random.choice(((0, 0, 0), (255, 255, 255), (128, 128, 128))), np.float32)
        padded = np.concatenate([table, np.repeat(line[None], 256 - len(table), 0)])
        pixels = padded[index]
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    return Scene(picture if clean else weather(picture, random), facts, index)


def _colours(count: int, random: Random) -> list[str]:
    """Colour names, mostly distinct: a repeated name is rare but must not be a surprise."""
    if count > 1 and random.random() < 0.06:
        return [random.choice(NAMES) for _ in range(count)]
    return random.sample(NAMES, count)


def _regions(count: int, random: Random) -> tuple[Region, ...]:
    return tuple(Region(name) for name in _colours(count, random))


def _single(size: Size, random: Random) -> tuple[Facts, Index]:
    return Facts("single", _regions(1, random)), np.zeros(size, np.uint8)


def _split(length: int, random: Random) -> int:
    share = 0.5 if random.random() < 0.4 else random.uniform(0.35, 0.65)
    return round(length * share)


def _quadrants(size: Size, random: Random) -> tuple[Facts, Index]:
    index = np.zeros(size, np.uint8)
    index[:, _split(size[1], random) :] += 1
    index[_split(size[0], random) :] += 2
    colours = _regions(4, random)
    return Facts("quadrants", colours), index


def _cuts(count: int, length: int, random: Random) -> list[int]:
    """Where the bands after the first begin: equal shares often, else shares of at least 0.6 of equal."""
    if random.random() < 0.5:
        return [round(length * step / count) for step in range(1, count)]
    weights = [random.uniform(0.75, 1.5) for _ in range(count)]
    ends = np.cumsum(weights) / sum(weights) * length
    return [round(float(end)) for end in ends[:-1]]


def _bands(size: Size, random: Random, axis: int) -> tuple[Facts, Index]:
    count = random.choices((2, 3, 4), (4, 5, 2))[0]
    line = np.zeros(size[axis], np.uint8)
    for cut in _cuts(count, size[axis], random):
        line[cut:] += 1
    index = np.broadcast_to(line[:, None] if axis == 0 else line[None], size).copy()
    return Facts("columns" if axis else "rows", _apart(count, random)), index


def _apart(count: int, random: Random) -> tuple[Region, ...]:
    """Colours for bands: two neighbours of one colour would be one band."""
    while True:
        regions = _regions(count, random)
        if all(a != b for a, b in pairwise(regions)):
            return regions


def _rows(size: Size, random: Random) -> tuple[Facts, Index]:
    return _bands(size, random, axis=0)


def _columns(size: Size, random: Random) -> tuple[Facts, Index]:
    return _bands(size, random, axis=1)


def _gradient(size: Size, random: Random) -> tuple[Facts, Index]:
    across = random.random() < 0.5
    index = np.zeros(size, np.uint8)
    index[(slice(None), slice(size[1] // 2, None)) if across else slice(size[0] // 2, None)] = 1
    return Facts("gradient", tuple(Region(name) for name in random.sample(NAMES, 2)), across), index


def _blend(table: NDArray[np.float32], size: Size, across: bool) -> NDArray[np.float32]:
    ramp = np.linspace(0, 1, size[1 if across else 0], dtype=np.float32)
    line = table[0] + ramp[:, None] * (table[1] - table[0])
    return np.broadcast_to(line[None] if across else line[:, None], (*size, 3))


def _checkerboard(size: Size, random: Random) -> tuple[Facts, Index]:
    cells = random.randint(3, 6)
    side = max(4, round(min(size) / cells))
    rows, columns = np.arange(size[0]) // side, np.arange(size[1]) // side
    index = ((rows[:, None] + columns[None]) % 2).astype(np.uint8)
    return Facts("checkerboard", tuple(Region(name) for name in random.sample(NAMES, 2))), index


def _shapes(size: Size, random: Random) -> tuple[Facts, Index]:
    count = random.choices((1, 2), (3, 2))[0]
    *colours, background = random.sample(NAMES, count + 1)
    index = np.full(size, count, np.uint8)
    figures = [random.choice(SHAPES) for _ in range(count)]
    width = size[1] / count
    for number, figure in enumerate(figures):
        room = min(size[0], width)
        side = room * random.uniform(0.5, 0.9)
        top = random.uniform(0.05, 0.95) * (size[0] - side)
        left = number * width + random.uniform(0.1, 0.9) * (width - side)
        index[inside(figure, size, top, left, side)] = number
    regions = [Region(name, figure) for name, figure in zip(colours, figures, strict=True)]
    return Facts("shapes", (*regions, Region(background))), index


def inside(figure: str, size: Size, top: float, left: float, side: float) -> NDArray[np.bool_]:
    """Which pixels [height, width] lie inside a figure whose box begins at (top, left)."""
    down = ((np.arange(size[0]) + 0.5 - top) / side)[:, None]
    right = ((np.arange(size[1]) + 0.5 - left) / side)[None]
    if figure == "circle":
        return np.asarray((down - 0.5) ** 2 + (right - 0.5) ** 2 <= 0.25)
    box = (down >= 0) & (down <= 1) & (right >= 0) & (right <= 1)
    if figure == "square":
        return box
    inside: NDArray[np.bool_] = box & (np.abs(right - 0.5) <= down / 2)
    return inside


def _lines(index: Index, kind: str, random: Random) -> Index:
    """Sometimes a thin line between regions or around the picture, so that neither is a surprise."""
    width = max(1, round(min(index.shape) * random.uniform(0.008, 0.03)))
    index = index.copy()
    if kind in ("quadrants", "rows", "columns") and random.random() < 0.15:
        edge = np.zeros(index.shape, bool)
        edge[:, width:] |= index[:, width:] != index[:, :-width]
        edge[width:] |= index[width:] != index[:-width]
        index[edge] = NOWHERE
    if kind != "checkerboard" and random.random() < 0.08:
        index[:width] = index[-width:] = NOWHERE
        index[:, :width] = index[:, -width:] = NOWHERE
    return index


_PAINTERS: dict[str, Callable[[Size, Random], tuple[Facts, Index]]] = {
    "single": _single,
    "quadrants": _quadrants,
    "rows": _rows,
    "columns": _columns,
    "gradient": _gradient,
    "checkerboard": _checkerboard,
    "shapes": _shapes,
}
