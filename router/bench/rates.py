"""Graphs of one matrix product each, to measure how fast this machine multiplies in every precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.export.graph import CONTRIB, FLOAT, INT32, UINT8, DataFile, Graph
from backends.rates import COLUMNS, INNER, ROWS


@dataclass(frozen=True)
class Probe:
    """A graph that multiplies ``x`` [ROWS, INNER] by a constant matrix [INNER, COLUMNS]."""

    name: str
    file: Path
    x: np.dtype[np.float32] | np.dtype[np.uint8]


def write(folder: Path) -> tuple[Probe, ...]:
    """Write every graph into the empty ``folder``, over one data file of about 100 MB."""
    with DataFile(folder / "probes.data") as data:
        return tuple(_write(name, add, folder, data) for name, add in _PRODUCTS.items())


def _write(name: str, add: Callable[[Graph, str], str], folder: Path, data: DataFile) -> Probe:
    graph = Graph(name, data)
    whole = add is _integer
    x = graph.input("x", UINT8 if whole else FLOAT, [ROWS, INNER])
    graph.output(add(graph, x), INT32 if whole else FLOAT, [ROWS, COLUMNS])
    file = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
    graph.save(file)
    return Probe(name, file, np.dtype(np.uint8) if whole else np.dtype(np.float32))


def _float32(graph: Graph, x: str) -> str:
    matrix = np.random.default_rng(0).standard_normal((INNER, COLUMNS), np.float32)
    return graph.op("MatMul", x, graph.constant(matrix, "float32"))


def _integer(graph: Graph, x: str) -> str:
    return graph.op("MatMulInteger", x, graph.constant(_codes(np.int8), "integer"))


def _dynamic(graph: Graph, x: str) -> str:
    scales = graph.constant(np.full(COLUMNS, 0.01, np.float32), "dynamic.scales")
    matrix = graph.constant(_codes(np.int8), "dynamic")
    return graph.op("DynamicQuantizeMatMul", x, matrix, scales, domain=CONTRIB)


def _blocks(bits: int, block: int) -> Callable[[Graph, str], str]:
    def add(graph: Graph, x: str) -> str:
        shape = (COLUMNS, INNER // block, block * bits // 8)
        codes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        scales = np.full(shape[:2], 0.01, np.float32)
        return graph.op(
            "MatMulNBits",
            x,
            graph.constant(codes, f"blocks.{bits}.{block}"),
            graph.constant(scales, f"blocks.{bits}.{block}.scales"),
            domain=CONTRIB,
            K=INNER,
            N=COLUMNS,
            bits=bits,
            block_size=block,
            accuracy_level=4,
        )

    return add


def _codes(dtype: type[np.int8]) -> NDArray[np.int8]:
    return np.random.default_rng(0).integers(-127, 128, (INNER, COLUMNS), dtype)


_PRODUCTS: dict[str, Callable[[Graph, str], str]] = {
    "fp32 MatMul": _float32,
    "int8 MatMulInteger": _integer,
    "int8 DynamicQuantizeMatMul": _dynamic,
    "int8 MatMulNBits, block 128": _blocks(8, 128),
    "int4 MatMulNBits, block 128": _blocks(4, 128),
    "int4 MatMulNBits, block 32": _blocks(4, 32),
}
