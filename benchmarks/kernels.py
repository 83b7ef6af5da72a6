"""What onnxruntime's matrix products cost here, by format and by how many tokens are read at once.

::

    python -m benchmarks.kernels --threads 2

One graph a format: so many matrices of the 2B shape, one after the other, that no cache holds them. Formats
take turns in one run; the table has medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from backends.machine import Processor

WIDE, NARROW = 6144, 2048  # of a 2B model's down and gate matrices
PAIRS = 5  # of matrices up and down: 63 MB at 4 bits


@dataclass(frozen=True)
class Format:
    """How matrices are kept."""

    name: str
    bits: int
    block: int = 0  # 0: a scale a row
    zeros: bool = False

    @property
    def bytes_per_value(self) -> float:
        """Of memory read, scales and zero points included."""
        if self.block == 0:
            return self.bits / 8
        return self.bits / 8 + (4 + self.bits / 8 * self.zeros) / self.block


FORMATS = (
    Format("int4, block 32", 4, 32),
    Format("int4, block 32, zero points", 4, 32, True),
    Format("int4, block 64", 4, 64),
    Format("int4, block 64, zero points", 4, 64, True),
    Format("int4, block 128", 4, 128),
    Format("int4, block 128, zero points", 4, 128, True),
    Format("int4, block 256", 4, 256),
    Format("int8, block 128", 8, 128),
    Format("int8, whole rows", 8),
    Format("float32", 32),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 512])
    parser.add_argument("-r", "--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{Processor.read().name}, {arguments.threads} threads; ms for each of {2 * PAIRS} matrices\n")
    print("| format | " + " | ".join(f"{tokens} tokens" for tokens in arguments.tokens) + " |")
    print("|---" * (1 + len(arguments.tokens)) + "|")
    for name, cells in rows(arguments.tokens, arguments.threads, arguments.repeats):
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def rows(counts: list[int], threads: int, repeats: int) -> Iterator[tuple[str, list[str]]]:
    """Each format's name, and what so many tokens take: memory's rate for one, operations' for more."""
    sessions = {kind: session(kind, threads) for kind in FORMATS}
    seconds = {kind: [0.0] * len(counts) for kind in FORMATS}
    for place, count in enumerate(counts):
        found: dict[Format, list[float]] = {kind: [] for kind in FORMATS}
        for turn in range(repeats + 1):
            for kind, own in sessions.items():
                taken = measure(own, count)
                if turn:  # the first warms up
                    found[kind].append(taken)
        for kind in FORMATS:
            seconds[kind][place] = float(np.median(found[kind])) / (2 * PAIRS)
    for kind in FORMATS:
        yield kind.name, [cell(kind, *each) for each in zip(counts, seconds[kind], strict=True)]


def cell(kind: Format, count: int, seconds: float) -> str:
    """Milliseconds, and GB/s read or GOP/s computed."""
    values = WIDE * NARROW
    if count == 1:
        return f"{seconds * 1e3:.2f} ({kind.bytes_per_value * values / seconds / 1e9:.0f} GB/s)"
    return f"{seconds * 1e3:.2f} ({2 * count * values / seconds / 1e9:.0f} GOP/s)"


def measure(own: ort.InferenceSession, count: int) -> float:
    """Seconds of one run."""
    x = np.random.default_rng(count).standard_normal((count, NARROW), np.float32)
    started = time.perf_counter()
    own.run(None, {"x": x})
    return time.perf_counter() - started


def session(kind: Format, threads: int) -> ort.InferenceSession:
    """The matrices of one format, one behind the other."""
    rng = np.random.default_rng(0)
    nodes, tensors, name = [], [], "x"
    for pair in range(PAIRS):
        for rows_, columns in ((WIDE, NARROW), (NARROW, WIDE)):
            node, own = product(kind, rows_, columns, name, f"{pair}.{rows_}", rng)
            nodes.append(node)
            tensors += [numpy_helper.from_array(value, key) for key, value in own.items()]
            name = node.output[0]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["tokens", NARROW]) for end in ("x", name)]
    graph = helper.make_graph(nodes, "kernels", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def product(
    kind: Format, rows_: int, columns: int, x: str, name: str, rng: np.random.Generator
) -> tuple[NodeProto, dict[str, NDArray[np.generic]]]:
    """A node that multiplies by a matrix [rows, columns], and its tensors."""
    if kind.bits == 32:
        matrix = rng.standard_normal((columns, rows_), np.float32) / np.float32(columns**0.5)
        return helper.make_node("MatMul", [x, name], [f"{name}.y"]), {name: matrix}
    if kind.block == 0:
        # at most 64: two products fit 16 bits, and the fastest sums are right on every processor
        own = {
            name: rng.integers(-64, 64, (columns, rows_)).astype(np.int8),
            f"{name}.s": np.full(rows_, 1e-3, np.float32),
        }
        node = helper.make_node("DynamicQuantizeMatMul", [x, *own], [f"{name}.y"], domain="com.microsoft")
        return node, own
    blocks = columns // kind.block
    own = {
        name: rng.integers(0, 256, (rows_, blocks, kind.block * kind.bits // 8)).astype(np.uint8),
        f"{name}.s": np.full((rows_, blocks), 1e-3, np.float32),
    }
    if kind.zeros:
        own[f"{name}.z"] = np.full((rows_, -(-blocks * kind.bits // 8)), 0x88, np.uint8)
    node = helper.make_node(
        "MatMulNBits",
        [x, *own],
        [f"{name}.y"],
        domain="com.microsoft",
        K=columns,
        N=rows_,
        bits=kind.bits,
        block_size=kind.block,
        accuracy_level=4,
    )
    return node, own


if __name__ == "__main__":
    main()
