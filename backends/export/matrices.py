"""A checkpoint's matrices on their way into a data file: rounded as the recipe says, a few rows at a time.

Graphs multiply by them with MatMulNBits and gather their rows with GatherBlockQuantized, over the same bytes.
A matrix may be kept in two parts, the upper bits and a rest in steps of a part of their scales: see `head`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError
from backends.export.graph import CONTRIB, DataFile, Graph
from backends.export.quantize import Matrix, Rounded, dequantise, quantise, quantise_rest, rest_of
from backends.store import MatrixError, Scheme, Weights

_READ = 1 << 24  # values read at once
_PIECE = 1 << 18  # values rounded at once by one thread: a megabyte, which stays in the processor's cache
_FLOAT32 = np.dtype(np.float32)
_UINT8 = np.dtype(np.uint8)

# rows -> those rows rounded, the squared error, and the squared norm
Rounding: TypeAlias = Callable[[Matrix], tuple[Rounded, float, float]]


@dataclass(frozen=True)
class Stored:
    """A matrix in the data file, or several of equal width, one below the other."""

    name: str
    rows: int
    columns: int
    scheme: Scheme | None  # None: float32 [rows, columns]
    rest_of: str | None = None  # of another matrix, in steps of a part of whose scales it is

    @property
    def scales(self) -> str:
        """The tensor that has the scales."""
        return f"{self.rest_of or self.name}.scales"

    @property
    def zeros(self) -> bool:
        """Whether blocks have zero points."""
        return self.scheme is not None and not self.scheme.symmetric


class Matrices:
    """Writes matrices into a data file, keeps how far each one moved, and multiplies by them in graphs."""

    def __init__(self, weights: Weights, data: DataFile, accuracy_level: int) -> None:
        self.errors: list[MatrixError] = []
        self._weights = weights
        self._data = data
        self._accuracy_level = accuracy_level

    def store(self, name: str, sources: Sequence[str], scheme: Scheme | None) -> Stored:
        """Write the tensors ``sources`` [rows, columns], one below the other, as the matrix ``name``."""
        shapes = [self._weights.shape(source) for source in sources]
        rows, columns = sum(shape[0] for shape in shapes), shapes[0][1]
        stored = Stored(name, rows, columns, scheme)
        if scheme is None:
            parts = (part for source in sources for part in self._parts(source))
            self._data.stream(name, _FLOAT32, (rows, columns), parts)
            return stored
        scales: list[NDArray[np.float32]] = []
        zeros: list[NDArray[np.uint8]] = []
        blocks = scheme.blocks(columns)
        shape = (rows, blocks, scheme.block * scheme.bits // 8)
        self._data.stream(name, _UINT8, shape, self._packed(sources, scheme, scales, zeros))
        self._data.write(name + ".scales", np.concatenate(scales))
        if stored.zeros:
            self._data.write(name + ".zeros", np.concatenate(zeros))
        return stored

    def store_rest(self, name: str, source: str, upper: Stored, bits: int) -> Stored:
        """Write ``bits`` more of the tensor ``source``, of which ``upper`` has the upper ones."""
        assert upper.scheme is not None
        rest = rest_of(upper.scheme, bits)
        rounding = partial(_round_rest, upper=upper.scheme, rest=rest)
        note = MatrixError(source, upper.scheme.bits + bits, rest.block, 0.0)
        shape = (upper.rows, rest.blocks(upper.columns), rest.block * bits // 8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            codes = (rounded.packed for rounded in self._noted(note, rounding, pool))
            self._data.stream(name, _UINT8, shape, codes)
        return Stored(name, upper.rows, upper.columns, rest, rest_of=upper.name)

    def _write(self, name: str, rounded: Rounded, stored: Stored) -> Stored:
        """Write a matrix that is whole in memory."""
        self._data.write(name, rounded.packed)
        self._data.write(name + ".scales", rounded.scales)
        if rounded.zeros is not None:
            self._data.write(name + ".zeros", rounded.zeros)
        return stored

    def vector(self, source: str, length: int) -> str:
        """Write a tensor of one axis as it is, in float32; return its name."""
        self._weights.expect(source, (length,))
        return self._data.write(source, self._weights.read(source))

    def multiply(self, graph: Graph, x: str, by: Stored, name: str | None = None) -> str:
        """Add ``x`` [..., columns] times the transposed matrix: [..., rows], called ``name`` or numbered."""
        scheme = by.scheme
        if scheme is None:
            return graph.op("FusedMatMul", x, graph.external(by.name), name=name, domain=CONTRIB, transB=1)
        inputs = [graph.external(by.name), graph.external(by.scales)]
        if by.zeros:
            inputs.append(graph.external(by.name + ".zeros"))
        return graph.op(
            "MatMulNBits",
            x,
            *inputs,
            name=name,
            domain=CONTRIB,
            K=by.columns,
            N=by.rows,
            bits=scheme.bits,
            block_size=scheme.block,
            accuracy_level=self._accuracy_level,
        )

    def gather(self, graph: Graph, ids: str, table: Stored) -> str:
        """Add the rows of ``table`` that ``ids`` int64 [...] name: float32 [..., columns]."""
        scheme = table.scheme
        if scheme is None:
            return graph.op("Gather", graph.external(table.name), ids)
        # the very bytes that MatMulNBits multiplies by, seen as rows instead of rows of blocks
        flat = self._data.view(table.name, "rows", (table.rows, -1))
        per_row = self._data.view(table.scales, "rows", (table.rows, -1))
        inputs = [graph.external(flat), ids, graph.external(per_row)]
        if table.zeros:
            inputs.append(graph.external(self._data.view(table.name + ".zeros", "rows", (table.rows, -1))))
        rows = graph.op(
            "GatherBlockQuantized",
            *inputs,
            domain=CONTRIB,
            bits=scheme.bits,
            block_size=scheme.block,
            gather_axis=0,
            quantize_axis=1,
        )
        if table.rest_of is not None:
            part = np.array(1 / (scheme.top + 1), np.float32)
            rows = graph.op("Mul", rows, graph.once(f"{table.name}.part", part))
        if scheme.blocks(table.columns) * scheme.block == table.columns:
            return rows
        return graph.op("Slice", rows, graph.ints(0), graph.ints(table.columns), graph.ints(-1))

    def describe(self, table: Stored, rest: Stored | None = None) -> str:
        """Where ``table``, and its ``rest``, stand in the data file and how they are read: JSON."""
        scheme = table.scheme
        rest_entry = {}
        if rest is not None and rest.scheme is not None:
            rest_entry["rest"] = {"values": self._data.places[rest.name].offset, "bits": rest.scheme.bits}
        parts = {"values": table.name, "scales": f"{table.name}.scales", "zeros": f"{table.name}.zeros"}
        offsets = {
            part: self._data.places[name].offset for part, name in parts.items() if name in self._data.places
        }
        return json.dumps(
            {
                "file": self._data.path.name,
                "rows": table.rows,
                "columns": table.columns,
                "bits": scheme.bits if scheme else 32,
                "block": scheme.block if scheme else 0,
                **offsets,
                **rest_entry,
            }
        )

    def _parts(self, source: str) -> Iterator[Matrix]:
        rows, columns = self._weights.shape(source)
        step = max(1, _READ // columns)
        for first in range(0, rows, step):
            yield self._weights.read(source, slice(first, first + step))

    def _packed(
        self,
        sources: Sequence[str],
        scheme: Scheme,
        scales: list[NDArray[np.float32]],
        zeros: list[NDArray[np.uint8]],
    ) -> Iterator[NDArray[np.uint8]]:
        """The codes of ``sources``; scales and zero points are put aside, the errors noted."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for source in sources:
                note = MatrixError(source, scheme.bits, scheme.block, 0.0)
                for rounded in self._noted(note, partial(_round, scheme=scheme, source=source), pool):
                    scales.append(rounded.scales)
                    zeros += [] if rounded.zeros is None else [rounded.zeros]
                    yield rounded.packed

    def _noted(self, note: MatrixError, rounding: Rounding, pool: ThreadPoolExecutor) -> Iterator[Rounded]:
        """The tensor that ``note`` names, rounded a few rows at a time; then its error is noted."""
        moved = whole = 0.0
        for part in self._parts(note.name):
            step = max(1, _PIECE // part.shape[1])
            pieces = [part[first : first + step] for first in range(0, len(part), step)]
            for rounded, error, norm in pool.map(rounding, pieces):
                moved, whole = moved + error, whole + norm
                yield rounded
        self.errors.append(note._replace(error=float(np.sqrt(moved / whole)) if whole else 0.0))


def check_norm(source: str, norm: float) -> None:
    """BackendError ``model_invalid`` where the squared norm of tensor ``source`` is no finite number."""
    if not np.isfinite(norm):
        raise BackendError(
            f"'{source}' holds values that are too large to be rounded; download the checkpoint again",
            code="model_invalid",
        )


def _round(piece: Matrix, scheme: Scheme, source: str) -> tuple[Rounded, float, float]:
    """Rounded rows of tensor ``source``, the squared error, and the squared norm."""
    norm = float(np.vdot(piece, piece))
    check_norm(source, norm)
    rounded = quantise(piece, scheme)
    error = dequantise(rounded, scheme, piece.shape[1])
    error -= piece
    return rounded, float(np.vdot(error, error)), norm


def _round_rest(piece: Matrix, upper: Scheme, rest: Scheme) -> tuple[Rounded, float, float]:
    """As `_round`, for what ``upper`` leaves; the error is that of both together."""
    rounded = quantise(piece, upper)
    lower = quantise_rest(piece, rounded, upper, rest)
    error = dequantise(rounded, upper, piece.shape[1]) + dequantise(lower, rest, piece.shape[1])
    error -= piece
    return lower, float(np.vdot(error, error)), float(np.vdot(piece, piece))
