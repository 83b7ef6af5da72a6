"""The tower's matrices: written in one precision, and multiplied by with the operator that suits it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backends.export.graph import CONTRIB, Graph
from backends.export.quantize import Matrix, Rounded, dequantise, quantise
from backends.machine import Processor
from backends.store import MatrixError, Scheme, VisionPrecision, fitting

PREFIX = "model.visual."
_BLOCK = 128  # values of a row that share a scale in w8
_PIECE = 1 << 20  # values rounded at once


class Tensors(Protocol):
    """A checkpoint's tensors, as ``Weights`` has them."""

    def expect(self, name: str, shape: tuple[int, ...]) -> None:
        """BackendError ``model_invalid`` unless there is a tensor ``name`` of this shape."""
        ...

    def read(self, name: str) -> NDArray[np.float32]:
        """The whole tensor."""
        ...


class Linears:
    """Matrices with a bias, in one of three precisions.

    ``fp32``: as the checkpoint has them. ``int8``: a scale for each output value, and the inputs rounded to
    8 bits by one scale for the whole run: fastest. ``w8``: a scale for each 128 weights of a row, and the
    inputs rounded by blocks too: nearer to fp32, and safe where a few inputs are far larger than the others.
    """

    def __init__(self, graph: Graph, tensors: Tensors, precision: VisionPrecision) -> None:
        self.errors: list[MatrixError] = []
        self._graph = graph
        self._tensors = tensors
        self._precision = precision

    def add(
        self,
        x: str,
        name: str,
        shape: tuple[int, ...],
        *,
        output: str | None = None,
        exact: bool = False,
    ) -> str:
        """Add ``x`` [..., in] times the matrix ``name``, and its bias: ``output``, [..., out].

        The checkpoint has it as ``shape``: out, and one or more sides that make in. ``exact`` keeps this one
        in float32.
        """
        self._tensors.expect(f"{PREFIX}{name}.weight", shape)
        self._tensors.expect(f"{PREFIX}{name}.bias", shape[:1])
        bias = self._graph.constant(self._tensors.read(f"{PREFIX}{name}.bias"), f"{name}.bias")
        matrix = self._tensors.read(f"{PREFIX}{name}.weight").reshape(shape[0], -1)
        if exact or self._precision == "fp32":
            return self._plain(x, name, matrix, bias, output)
        add = self._columns if self._precision == "int8" else self._blocks
        return add(x, name, matrix, bias, output)

    def _plain(self, x: str, name: str, matrix: Matrix, bias: str, output: str | None) -> str:
        graph = self._graph
        product = graph.op("MatMul", x, graph.constant(matrix.T, f"{name}.weight"))
        return graph.op("Add", product, bias, name=output)

    def _columns(self, x: str, name: str, matrix: Matrix, bias: str, output: str | None) -> str:
        graph = self._graph
        rounded = self._round(name, matrix, Scheme(8, matrix.shape[1], symmetric=True, search=False))
        weight = graph.constant(_signed_or_not(rounded.packed[:, 0]).T, f"{name}.weight")
        zero = _zero_points(graph, len(matrix))
        scale = graph.constant(rounded.scales[:, 0], f"{name}.scale")
        return graph.op("DynamicQuantizeMatMul", x, weight, scale, zero, bias, name=output, domain=CONTRIB)

    def _blocks(self, x: str, name: str, matrix: Matrix, bias: str, output: str | None) -> str:
        graph = self._graph
        rows, columns = matrix.shape
        scheme = Scheme(8, fitting(_BLOCK, columns), symmetric=True, search=False)
        rounded = self._round(name, matrix, scheme)
        return graph.op(
            "MatMulNBits",
            x,
            graph.constant(rounded.packed, f"{name}.weight"),
            graph.constant(rounded.scales, f"{name}.scale"),
            "",
            "",
            bias,
            name=output,
            domain=CONTRIB,
            K=columns,
            N=rows,
            bits=8,
            block_size=scheme.block,
            accuracy_level=4,
        )

    def _round(self, name: str, matrix: Matrix, scheme: Scheme) -> Rounded:
        """The matrix rounded a few rows at a time, and its error noted."""
        step = max(1, _PIECE // matrix.shape[1])
        pieces = [matrix[first : first + step] for first in range(0, len(matrix), step)]
        parts = [quantise(piece, scheme) for piece in pieces]
        moved = sum(
            _square(dequantise(part, scheme, matrix.shape[1]) - piece)
            for part, piece in zip(parts, pieces, strict=True)
        )
        error = float(np.sqrt(moved / max(_square(matrix), 1e-30)))
        block = 0 if scheme.block == matrix.shape[1] else scheme.block
        self.errors.append(MatrixError(f"{PREFIX}{name}.weight", scheme.bits, block, error))
        packed, scales = (
            np.concatenate([getattr(part, field) for part in parts]) for field in ("packed", "scales")
        )
        return Rounded(packed, scales, None)


def _signed_or_not(codes: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.int8]:
    """Codes around 128 as this processor adds products of them fastest without cutting sums at 16 bits.

    Either is right everywhere: `backends.onnx.decoder.int8_options` has signed ones turned where it must be.
    """
    return (codes ^ 0x80).view(np.int8) if Processor.read().sums_whole else codes


def _zero_points(graph: Graph, rows: int) -> str:
    """Add which codes stand for 0 in a matrix of `_signed_or_not` with ``rows`` output values; "" for 0."""
    if Processor.read().sums_whole:
        return ""
    return graph.once(f"middle_{rows}", np.full(rows, 128, np.uint8))


def _square(values: NDArray[np.float32]) -> float:
    return float(np.vdot(values, values))
