"""The layers' matrices rounded by what goes into them, in the order in which a prompt meets them.

Each matrix's inputs come from the prompts walked through all matrices before it, as those were rounded; then
the walk goes on with what this one became.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.export.body import embedding_table
from backends.export.calibration.compensate import compensate, feedback, hessian
from backends.export.calibration.samples import Floats, Samples, embed_prompts
from backends.export.calibration.walk import Walk
from backends.export.graph import DataFile
from backends.export.matrices import Matrices, Stored, check_norm
from backends.export.quantize import Matrix, Rounded, dequantise, quantise
from backends.qwen3vl import Config
from backends.store import MatrixError, Recipe, Scheme, Weights

_PIECE = 1 << 18  # values rounded at once by one thread


class CalibratedMatrices(Matrices):
    """As `Matrices`, but for 4-bit matrices of the layers: their rounding is compensated.

    What is rounded of a layer feeds what comes after it, so that later matrices make up for that too.
    """

    def __init__(
        self, weights: Weights, data: DataFile, recipe: Recipe, config: Config, samples: Samples, folder: Path
    ) -> None:
        """Encode the samples' images with the tower in ``folder``, and embed the samples."""
        super().__init__(weights, data, recipe.accuracy_level)
        first, second = samples.prompts[::2], samples.prompts[1::2]  # they come in pairs that are alike
        embed = partial(_embed, weights, *embedding_table(weights, config.text, recipe))
        states = embed_prompts(
            [*first, *second, *samples.held_out], config, embed, samples.load_tower(folder)
        )
        self._walk = Walk(states, weights, config.text)
        self._halves = states.ends[len(first) - 1], states.ends[len(samples.prompts) - 1]

    def store(self, name: str, sources: Sequence[str], scheme: Scheme | None) -> Stored:
        """Write the matrix; those of the layers must come in the order of the model."""
        advance = self._advance(name)
        if advance is None or scheme is None:
            return super().store(name, sources, scheme)
        parts = [self._weights.read(source) for source in sources]
        for source, part in zip(sources, parts, strict=True):
            check_norm(source, float(np.vdot(part, part)))
        matrix = np.concatenate(parts)
        plain = _plain(matrix, scheme)
        rounded = plain if scheme.bits > 4 else self._compensated(matrix, scheme)
        back = dequantise(rounded, scheme, matrix.shape[1])
        self._note_errors(sources, scheme, parts, back, dequantise(plain, scheme, matrix.shape[1]))
        advance(back)
        return self._write(name, rounded, Stored(name, len(matrix), matrix.shape[1], scheme))

    def _advance(self, name: str) -> Callable[[Floats], None] | None:
        """The walk's step past this matrix; None: the prompts do not pass it."""
        layer, _, kind = name.rpartition(".")
        return getattr(self._walk, f"pass_{kind}") if layer.startswith("layers.") else None

    def _compensated(self, matrix: Matrix, scheme: Scheme) -> Rounded:
        middle, end = self._halves
        return compensate(matrix, feedback(hessian(self._walk.inputs[:end], middle)), scheme)

    def _note_errors(
        self, sources: Sequence[str], scheme: Scheme, parts: Sequence[Matrix], back: Matrix, plain: Matrix
    ) -> None:
        """Keep how far each source moved, and its outputs on the prompts held out."""
        inputs, first = self._walk.inputs[self._halves[1] :], 0
        for source, part in zip(sources, parts, strict=True):
            rows = slice(first, first := first + len(part))
            output = _norm(inputs @ part.T)
            moved, plain_moved = (_norm(inputs @ (part - other[rows]).T) / output for other in (back, plain))
            error = _norm(part - back[rows]) / max(_norm(part), 1e-30)
            self.errors.append(MatrixError(source, scheme.bits, scheme.block, error, moved, plain_moved))


def _embed(
    weights: Weights, table: str, rounding: Callable[[Matrix], Matrix], ids: NDArray[np.int64]
) -> Floats:
    """The embeddings [tokens, columns] of ``ids``, rounded as the export has them; few rows are read."""
    tokens, places = np.unique(ids, return_inverse=True)
    rows = np.concatenate([weights.read(table, slice(token, token + 1)) for token in tokens.tolist()])
    return rounding(rows)[places]


def _plain(matrix: Matrix, scheme: Scheme) -> Rounded:
    step = max(1, _PIECE // matrix.shape[1])
    pieces = [matrix[first : first + step] for first in range(0, len(matrix), step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return Rounded.joined(list(pool.map(partial(quantise, scheme=scheme), pieces)))


def _norm(values: Floats) -> float:
    return float(np.linalg.norm(values))
