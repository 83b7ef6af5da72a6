"""Draws the sample pictures that ship: python -m benchmarks.scenes.samples router/scenes/samples"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.scenes.draw import Index, inside
from benchmarks.scenes.palette import ANCHORS

SIZE = (160, 160)


def main() -> None:
    """Writes the samples into the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    down, right = np.indices(SIZE)
    quarters = (down >= 80) * 2 + (right >= 80)
    board = (down // 40 + right // 40) % 2
    figures = np.full(SIZE, 2)
    figures[inside("circle", SIZE, top=45, left=6, side=70)] = 0
    figures[inside("square", SIZE, top=45, left=84, side=70)] = 1
    _save(folder / "quadrants.png", _coloured(quarters, "red", "green", "blue", "yellow"))
    _save(folder / "checkerboard.png", _coloured(board, "black", "white"))
    _save(folder / "shapes.png", _coloured(figures, "red", "blue", "white"))
    share = np.linspace(0, 1, SIZE[1])[None, :, None]
    ends = np.array([ANCHORS["blue"][0], ANCHORS["yellow"][0]], float)
    ramp = np.broadcast_to(ends[0] + share * (ends[1] - ends[0]), (*SIZE, 3))
    _save(folder / "gradient.png", ramp.round().astype(np.uint8))


def _coloured(index: Index | NDArray[np.int64], *names: str) -> NDArray[np.uint8]:
    return np.array([ANCHORS[name][0] for name in names], np.uint8)[index]


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(path, optimize=True)


if __name__ == "__main__":
    main()
