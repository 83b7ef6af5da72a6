"""Where each token stands: three positions a token, for time, row and column (MRoPE)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError

_Span: TypeAlias = tuple[int, int, int, int]


class PositionIds(NamedTuple):
    """The positions of a prompt, and the one of the token after it."""

    ids: NDArray[np.int64]  # [3, tokens]: t, h, w
    next_position: int  # of the first decoded token, in all three rows; each later token adds one


def position_ids(
    tokens: int, spans: NDArray[np.int64] | None, grid: NDArray[np.int64] | None, merge: int
) -> PositionIds:
    """Place ``tokens`` ids of which ``spans`` [images, 2] are images of ``grid`` [images, 3] patches.

    Text counts up in all three rows. An image at position p has t = p, h = p + row, w = p + column of its
    merged grid, and what follows goes on at p + max(rows, columns): transformers' Qwen3VL ``get_rope_index``.
    Raises BackendError ``internal_inconsistency`` when spans and grids do not fit each other or the ids.
    """
    ids = np.empty((3, tokens), np.int64)
    placed = position = 0
    for first, end, rows, columns in _images(tokens, spans, grid, merge):
        ids[:, placed:first] = np.arange(position, position + first - placed)
        position += first - placed
        ids[:, first:end] = position + np.indices((1, rows, columns)).reshape(3, -1)
        position += max(rows, columns)
        placed = end
    ids[:, placed:] = np.arange(position, position + tokens - placed)
    return PositionIds(ids, position + tokens - placed)


def _images(
    tokens: int, spans: NDArray[np.int64] | None, grid: NDArray[np.int64] | None, merge: int
) -> Iterator[_Span]:
    """Each image's first place, the one after its last, its merged rows and columns; all of it checked."""
    if spans is None and grid is None:
        return
    if spans is None or grid is None or spans.shape != (len(grid), 2) or grid.shape != (len(spans), 3):
        shapes = [None if array is None else array.shape for array in (spans, grid)]
        raise _inconsistent(
            f"spans and grid must be [images, 2] and [images, 3], got {shapes[0]} and {shapes[1]}"
        )
    placed = 0
    for index, ((first, end), (t, h, w)) in enumerate(zip(spans.tolist(), grid.tolist(), strict=True)):
        if not placed <= first < end <= tokens:
            raise _inconsistent(f"image {index} fills ids {first} to {end}, outside {placed} to {tokens}")
        if t != 1 or h < merge or w < merge or h % merge or w % merge:
            # a video comes as one image a frame, with a time stamp before each
            raise _inconsistent(f"image {index} has grid {t} x {h} x {w}; need 1 and multiples of {merge}")
        if end - first != (h // merge) * (w // merge):
            raise _inconsistent(f"image {index} has {end - first} places for {h * w // merge**2} features")
        placed = end
        yield first, end, h // merge, w // merge


def _inconsistent(problem: str) -> BackendError:
    return BackendError(f"the prompt does not fit its images: {problem}", code="internal_inconsistency")
