"""How fast this machine reads memory and multiplies matrices, and how many bytes of weights a graph reads.

Matrix products are graphs of one product each on onnxruntime, in each precision that it has a kernel for, and
PyTorch's of bfloat16, of which onnxruntime has none on a processor. Each is timed at its best::

    operations per second = 2 ROWS INNER COLUMNS / least seconds      a multiplication and an addition are two
    bytes per second      = bytes of a buffer far beyond the caches / least seconds
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from backends.base import BackendError, Runtime
from backends.export.graph import CONTRIB, FLOAT, INT32, UINT8, DataFile, Graph
from backends.onnx.decoder import options
from backends.onnx.errors import named_errors

# the widest matrix of the 2B model's layers, read by a chunk of a prompt
ROWS, INNER, COLUMNS = 512, 2048, 6144
OPERATIONS = 2 * ROWS * INNER * COLUMNS  # a multiplication and an addition for each weight and row
SECONDS = 0.4  # how long a product is repeated


def least_seconds(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """How long ``work`` takes at its best, repeated for ``seconds`` after one run to warm up."""
    work()
    least, end = float("inf"), time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or least == float("inf"):
        work()
        least = min(least, time.perf_counter() - started)
    return least


@dataclass(frozen=True)
class Probe:
    """A graph that multiplies ``x`` [ROWS, INNER] by a constant matrix [INNER, COLUMNS]."""

    name: str
    file: Path
    x: np.dtype[np.float32] | np.dtype[np.uint8]


def write_probes(folder: Path) -> tuple[Probe, ...]:
    """Write every graph into the empty ``folder``, over one data file of about 100 MB."""
    with DataFile(folder / "probes.data") as data:
        return tuple(_write(name, add, folder, data) for name, add in _PRODUCTS.items())


def _write(name: str, add: Callable[[Graph, str], str], folder: Path, data: DataFile) -> Probe:
    graph = Graph(name, data)
    is_integer = add is _integer
    x = graph.input("x", UINT8 if is_integer else FLOAT, [ROWS, INNER])
    graph.output(add(graph, x), INT32 if is_integer else FLOAT, [ROWS, COLUMNS])
    file = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
    graph.save(file)
    return Probe(name, file, np.dtype(np.uint8) if is_integer else np.dtype(np.float32))


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


# what is read whole; a gather or a rotary embedding reads one row of its table, which is nothing beside it
_READ = {"MatMulNBits", "MatMul", "FusedMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "Gemm"}


def weight_bytes(file: Path) -> int:
    """Bytes of every matrix that the graph multiplies by: its codes, scales and zero points, each once.

    BackendError ``model_invalid``: ``file`` is no graph.
    """
    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise BackendError(f"{file} cannot be read: {error}", code="model_invalid") from None
    operands = {name for node in graph.node if node.op_type in _READ for name in node.input}
    # two names may stand for the same bytes of the data file
    places = dict(_place(tensor) for tensor in graph.initializer if tensor.name in operands)
    return sum(places.values())


def _place(tensor: onnx.TensorProto) -> tuple[tuple[str, str], int]:
    """What tells a tensor's bytes from another's, and how many they are."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return ("", tensor.name), len(tensor.raw_data)
    entry = {pair.key: pair.value for pair in tensor.external_data}
    return (entry["location"], entry.get("offset", "0")), int(entry["length"])


def matrix_rates(runtime: Runtime) -> Iterator[tuple[str, float]]:
    """The name and the operations per second of each product, a multiplication and an addition being two."""
    with tempfile.TemporaryDirectory(prefix="hybrid-") as folder:
        for probe in write_probes(Path(folder)):
            yield probe.name, OPERATIONS / _seconds(probe, runtime)


def _seconds(probe: Probe, runtime: Runtime) -> float:
    with named_errors(f"{probe.name} cannot be measured"):
        session = ort.InferenceSession(probe.file, options(runtime), providers=["CPUExecutionProvider"])
        x = (np.random.default_rng(0).random((ROWS, INNER), np.float32) * 100).astype(probe.x)
        return least_seconds(lambda: session.run(None, {"x": x}))


_SMALL = 256  # rows and columns of the product that is tried first
_SLOW = 1e10  # operations per second


def bf16_rate(threads: int) -> float:
    """Operations per second, a multiplication and an addition being two; PyTorch's, an extra.

    onnxruntime has no kernel for bfloat16 matrices on a processor.
    """
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        # a processor without instructions for them takes a minute for the whole product
        small = 2 * _SMALL**3 / _torch_seconds(_SMALL, _SMALL, _SMALL)
        return small if small < _SLOW else OPERATIONS / _torch_seconds(ROWS, INNER, COLUMNS)


def _torch_seconds(rows: int, inner: int, columns: int) -> float:
    import torch

    x = torch.randn(rows, inner).to(torch.bfloat16)
    matrix = torch.randn(inner, columns).to(torch.bfloat16)
    return least_seconds(lambda: x @ matrix)


LEAST_BYTES = 256 << 20
_CACHES = 8  # times the largest cache, so that next to nothing is read from it


def read_bandwidth(threads: int, cache_bytes: int | None = None, seconds: float = 1.5) -> float:
    """Bytes per second, at best: each thread looks for the largest value of its part of a buffer."""
    count = max(LEAST_BYTES, _CACHES * (cache_bytes or 0)) // 4
    parts = np.array_split(np.ones(count, np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:  # numpy lets other threads go on while it reduces
        best = least_seconds(lambda: list(pool.map(np.max, parts)), seconds)
    return 4 * count / best
