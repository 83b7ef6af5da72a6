"""How far the matrices of a GGUF file are from the checkpoint it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.export.recipe import MatrixError
from backends.export.weights import Weights
from backends.qwen3vl.config import Config
from benchmarks.peers.gguf_files import Stored, is_matrix, stored

_VALUES = 1 << 24  # compared at once


def errors(file: Path, folder: Path, *, vision: bool) -> list[MatrixError]:
    """||W - Wq|| / ||W|| of every matrix of ``file``, which is read back and widened to float32."""
    import gguf

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    weights = Weights(folder)
    matrices = []
    for tensor in filter(is_matrix, stored(weights, Config.read(folder), vision=vision)):
        held = found[tensor.name]
        block, size = gguf.GGML_QUANT_SIZES[held.tensor_type]
        error = relative_error(_pieces(tensor, held, weights))
        matrices.append(MatrixError(tensor.source, 8 * size // block, block, error))
    return matrices


def relative_error(pieces: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float:
    """||W - Wq|| / ||W||, where each piece has a part of W and the same part of Wq."""
    moved = whole = 0.0
    for right, rounded in pieces:
        # in float64: a head has more values than float32 can sum
        moved += float(np.square(right - rounded).sum(dtype=np.float64))
        whole += float(np.square(right).sum(dtype=np.float64))
    return math.sqrt(moved / whole)


def _pieces(
    tensor: Stored, held: Any, weights: Weights
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    import gguf

    for rows in _slices(tensor.shape):
        right = tensor.read(weights, rows)
        yield right, gguf.dequantize(held.data[rows], held.tensor_type).reshape(right.shape)


def _slices(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _VALUES // math.prod(shape[1:]))
    yield from (slice(first, first + step) for first in range(0, shape[0], step))
