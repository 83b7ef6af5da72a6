"""Matrices at 7 bits with a scale for each output value, multiplied by what is rounded to 8 bits itself.

x86 without VNNI adds products of int8 two by two in 16 bits, which hold 2 * 255 * 64 and not 2 * 255 * 127:
at 7 bits its fastest sums are right. Each token has a scale of its own, so that one whose values are far
larger than the others' costs only itself, and a token's result does not depend on what is read beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.export.graph import CONTRIB, DataFile, Graph
from backends.export.quantize import Matrix, dequantise, quantise
from backends.store import MatrixError, Scheme, Weights

_PIECE = 1 << 20  # values rounded at once
_TOP = 127  # the largest step on either side of 0


@dataclass(frozen=True)
class Column:
    """A matrix in the data file, transposed: int8 [columns, rows] from -64 to 63, and a scale [rows]."""

    name: str
    rows: int
    columns: int


class Columns:
    """Writes matrices into a data file, keeps how far each one moved, and multiplies by them in graphs."""

    def __init__(self, weights: Weights, data: DataFile) -> None:
        self.errors: list[MatrixError] = []
        self._weights = weights
        self._data = data

    def store(self, name: str, sources: Sequence[str], _scheme: Scheme | None) -> Column:
        """Write the tensors ``sources`` [rows, columns], side by side once transposed, as ``name``."""
        parts = [self._rounded(source) for source in sources]
        codes = np.concatenate([codes for codes, _ in parts])
        self._data.write(name, codes.T)
        self._data.write(f"{name}.scales", np.concatenate([scales for _, scales in parts]))
        return Column(name, *codes.shape)

    def vector(self, source: str, length: int) -> str:
        """Write a tensor of one axis as it is, in float32; return its name."""
        self._weights.expect(source, (length,))
        return self._data.write(source, self._weights.read(source))

    def multiply(self, graph: Graph, x: str, by: Column, name: str | None = None) -> str:
        """Add ``x`` [1, tokens, columns] times the transposed matrix: [1, tokens, rows]."""
        middle = graph.once("middle", np.array(128, np.uint8))  # stands for 0
        tokens = graph.op("Reshape", x, graph.ints(-1, by.columns))
        step = self._steps(graph, tokens)
        zeros = graph.op("Expand", middle, graph.op("Shape", step))
        product = graph.op(
            "MatMulIntegerToFloat",
            graph.op("QuantizeLinear", tokens, step, zeros, axis=0),
            graph.external(by.name),
            graph.once("one", np.array(1, np.float32)),
            graph.external(f"{by.name}.scales"),
            middle,
            domain=CONTRIB,
        )
        scaled = graph.op("Mul", product, graph.op("Unsqueeze", step, graph.ints(1)))
        return graph.op("Reshape", scaled, graph.ints(1, -1, by.rows), name=name)

    def _steps(self, graph: Graph, tokens: str) -> str:
        """The steps [tokens] that the values of ``tokens`` [tokens, columns] are rounded to."""
        largest = graph.op("ReduceMax", graph.op("Abs", tokens), graph.ints(1), keepdims=0)
        # a token of zeros would be divided by zero
        largest = graph.op("Max", largest, graph.once("tiny", np.array(1e-30, np.float32)))
        return graph.op("Mul", largest, graph.once("share", np.array(1 / _TOP, np.float32)))

    def _rounded(self, source: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Codes [rows, columns] and scales [rows] of one tensor, its error noted."""
        scheme = Scheme(7, self._weights.shape(source)[1], symmetric=True, search=False)
        codes, scales, moved, whole = [], [], 0.0, 0.0  # squared norms: of the error, of the tensor
        for piece in self._pieces(source):
            rounded = quantise(piece, scheme)
            codes.append(rounded.packed[:, 0].view(np.int8) - np.int8(scheme.middle))
            scales.append(rounded.scales[:, 0])
            error = dequantise(rounded, scheme, piece.shape[1]) - piece
            moved += float(np.vdot(error, error))
            whole += float(np.vdot(piece, piece))
        relative = float(np.sqrt(moved / whole)) if whole else 0.0
        self.errors.append(MatrixError(source, scheme.bits, 0, relative))
        return np.concatenate(codes), np.concatenate(scales)

    def _pieces(self, source: str) -> Iterator[Matrix]:
        rows, columns = self._weights.shape(source)
        step = max(1, _PIECE // columns)
        for first in range(0, rows, step):
            yield self._weights.read(source, slice(first, first + step))
