"""Matrices at 8 bits with a scale for each output value, multiplied by what is rounded to 8 bits itself.

Each token has a scale of its own, so that one whose values are far larger than the others' costs only itself,
and a token's result does not depend on what is read beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.export.graph import CONTRIB, DataFile, Graph
from backends.export.quantize import Matrix, Scheme, dequantise, quantise
from backends.export.recipe import MatrixError
from backends.export.weights import Weights
from backends.processor import Processor

_PIECE = 1 << 20  # values rounded at once
_TOP = 127  # the largest step on either side of 0


@dataclass(frozen=True)
class Column:
    """A matrix in the data file, transposed: int8 [columns, rows] or uint8 around 128, and a scale a row."""

    name: str
    rows: int
    columns: int


def signed_or_not(codes: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.int8]:
    """Codes around 128 as this processor adds products of them fastest without cutting sums at 16 bits.

    Either is right everywhere: `backends.ort.decoder.int8_options` has signed ones turned where it must be.
    """
    return (codes ^ 0x80).view(np.int8) if Processor.read().sums_whole else codes


def zero_points(graph: Graph, rows: int) -> str:
    """Add which codes stand for 0 in a matrix of `signed_or_not` with ``rows`` output values; "" for 0."""
    if Processor.read().sums_whole:
        return ""
    return graph.once(f"middle_{rows}", np.full(rows, 128, np.uint8))


class Columns:
    """Writes matrices into a data file, keeps how far each one moved, and multiplies by them in graphs."""

    def __init__(self, weights: Weights, data: DataFile) -> None:
        self.errors: list[MatrixError] = []
        self._weights = weights
        self._data = data

    def store(self, name: str, sources: Sequence[str], scheme: Scheme | None) -> Column:
        """Write the tensors ``sources`` [rows, columns], side by side once transposed, as ``name``."""
        assert scheme is not None
        parts = [self._rounded(source, scheme) for source in sources]
        codes = np.concatenate([codes for codes, _ in parts])
        self._data.write(name, signed_or_not(codes).T)
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
            zero_points(graph, by.rows),
            domain=CONTRIB,
        )
        scaled = graph.op("Mul", product, graph.op("Unsqueeze", step, graph.ints(1)))
        return graph.op("Reshape", scaled, graph.ints(1, -1, by.rows), name=name)

    def _steps(self, graph: Graph, tokens: str) -> str:
        """The steps [tokens] that the values of ``tokens`` [tokens, columns] are rounded to."""
        largest = graph.op("ReduceMax", graph.op("Abs", tokens), graph.ints(1), keepdims=0)
        largest = graph.op(
            "Max", largest, graph.once("tiny", np.array(1e-30, np.float32))
        )  # zeros stay zeros
        return graph.op("Mul", largest, graph.once("share", np.array(1 / _TOP, np.float32)))

    def _rounded(self, source: str, scheme: Scheme) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Codes [rows, columns] around 128 and scales [rows] of one tensor, its error noted."""
        codes, scales, moved, whole = [], [], 0.0, 0.0
        for piece in self._pieces(source):
            rounded = quantise(piece, scheme)
            codes.append(rounded.packed[:, 0])
            scales.append(rounded.scales[:, 0])
            back = dequantise(rounded, scheme, piece.shape[1]) - piece
            moved += float(np.vdot(back, back))
            whole += float(np.vdot(piece, piece))
        error = float(np.sqrt(moved / whole)) if whole else 0.0
        self.errors.append(MatrixError(source, scheme.bits, 0, error))
        return np.concatenate(codes), np.concatenate(scales)

    def _pieces(self, source: str) -> Iterator[Matrix]:
        rows, columns = self._weights.shape(source)
        step = max(1, _PIECE // columns)
        for first in range(0, rows, step):
            yield self._weights.read(source, slice(first, first + step))
