"""Where each patch of an image stands in the vision tower, as the numbers that the tower computes with."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.qwen3vl.config import VisionConfig

_ROPE_THETA = 10_000.0  # Qwen3-VL's own; older configs do not write it
_Axis: TypeAlias = tuple[
    NDArray[np.int64], NDArray[np.float32]
]  # table indices and weights, both [patches, 2]


class VisionPositions(NamedTuple):
    """The places of one image's patches, block by block as ``images.patches`` gives them."""

    indices: NDArray[np.int64]  # [patches, 4]: entries of the square table of position embeddings
    weights: NDArray[np.float32]  # [patches, 4]: how much of each; a patch's four sum to 1
    cos: NDArray[np.float32]  # [patches, head_dim / 2]: of the rotary angles, by row and then by column
    sin: NDArray[np.float32]  # [patches, head_dim / 2]


def vision_positions(rows: int, columns: int, config: VisionConfig) -> VisionPositions:
    """Place the patches of an image of ``rows`` x ``columns`` patches, both multiples of ``config.merge``.

    The table is stretched over the image corner to corner, bilinearly, and the rotary angle has half of its
    pairs from the row and half from the column: transformers' Qwen3VLVisionModel. All in float32, as there.
    """
    row, column = _in_blocks(rows, columns, config.merge)
    (down, down_weights), (across, across_weights) = (
        _stretch(row, rows, config.side),
        _stretch(column, columns, config.side),
    )
    indices = down[:, :, None] * config.side + across[:, None, :]
    weights = down_weights[:, :, None] * across_weights[:, None, :]
    angles = _angles(row, column, config.hidden // config.heads)
    return VisionPositions(indices.reshape(-1, 4), weights.reshape(-1, 4), np.cos(angles), np.sin(angles))


def _in_blocks(rows: int, columns: int, merge: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each patch, [patches] each; those of a block stand one after the other."""
    grid = np.indices((rows, columns)).reshape(2, rows // merge, merge, columns // merge, merge)
    row, column = grid.transpose(0, 1, 3, 2, 4).reshape(2, -1)
    return row, column


def _stretch(index: NDArray[np.int64], size: int, side: int) -> _Axis:
    """The two table rows around each place of an axis of ``size`` patches, and the share of each."""
    source = index.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    below = np.floor(source)
    first = below.astype(np.int64)
    # the last patch stands on the last entry: the one after it has no share, and must only exist
    taps = np.stack([first, np.minimum(first + 1, side - 1)], 1)
    distance = source - below
    # one less each distance, as transformers rounds it: the second is not quite the first distance
    return taps, np.stack([1 - distance, 1 - (1 - distance)], 1)


def _angles(row: NDArray[np.int64], column: NDArray[np.int64], head_dim: int) -> NDArray[np.float32]:
    half = head_dim // 2
    steps = np.arange(0, half, 2, dtype=np.float32) / np.float32(half)
    frequencies = (1 / np.float32(_ROPE_THETA) ** steps).astype(np.float32)
    return np.concatenate([place[:, None].astype(np.float32) * frequencies for place in (row, column)], 1)
