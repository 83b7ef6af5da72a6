"""How far the matrices of a GGUF file are from the checkpoint it was made from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.qwen3vl import Config
from backends.store import MatrixError, Weights
from benchmarks.peers.errors import relative_error
from benchmarks.peers.gguf_files import is_matrix, stored


def errors(file: Path, folder: Path, *, vision: bool) -> list[MatrixError]:
    """||W - Wq|| / ||W|| of every matrix of ``file``, which is read back and widened to float32."""
    import gguf

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    weights = Weights(folder)
    matrices = []
    for tensor in filter(is_matrix, stored(weights, Config.read(folder), vision=vision)):
        held = found[tensor.name]
        block, size = gguf.GGML_QUANT_SIZES[held.tensor_type]

        def kept(rows: slice, held: Any = held) -> NDArray[np.float32]:
            return gguf.dequantize(held.data[rows], held.tensor_type)

        error = relative_error(tensor.shape, partial(tensor.read, weights), kept)
        matrices.append(MatrixError(tensor.source, 8 * size // block, block, error))
    return matrices
