"""Graphs find their tensors in the data file that they share."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from backends.export.graph import FLOAT, DataFile, Graph

onnxruntime = pytest.importorskip("onnxruntime")

WIDE = np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)


def multiply(data: DataFile, path: Path, sign: float) -> None:
    graph = Graph(path.stem, data)
    x = graph.input("x", FLOAT, ["rows", 48])
    product = graph.op("MatMul", x, graph.external("wide"))
    graph.op("Mul", product, graph.constant(np.array(sign, np.float32)), name="y")
    graph.output("y", FLOAT, ["rows", 64])
    graph.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with DataFile(tmp_path / "weights.data") as data:
        data.write("other", np.ones(5, np.uint8))
        data.stream("wide", WIDE.dtype, WIDE.shape, (WIDE[row : row + 10] for row in range(0, 48, 10)))
        multiply(data, tmp_path / "plus.onnx", 1)
        multiply(data, tmp_path / "minus.onnx", -1)
    return tmp_path


@pytest.mark.parametrize(("name", "sign"), [("plus", 1), ("minus", -1)])
def test_two_graphs_share_one_data_file(folder: Path, name: str, sign: int) -> None:
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(3, 48)).astype(np.float32)
    assert np.allclose(session.run(None, {"x": x})[0], sign * x @ WIDE, atol=1e-4)
    assert (folder / f"{name}.onnx").stat().st_size < 2000


def test_tensors_start_on_pages(folder: Path) -> None:
    model = onnx.load(folder / "plus.onnx", load_external_data=False)
    entries = {entry.key: entry.value for tensor in model.graph.initializer for entry in tensor.external_data}
    assert entries == {"location": "weights.data", "offset": "4096", "length": str(WIDE.nbytes)}


def test_a_tensor_of_another_length_is_refused(tmp_path: Path) -> None:
    with DataFile(tmp_path / "weights.data") as data, pytest.raises(AssertionError, match="has 40 bytes"):
        data.stream("short", np.dtype(np.float32), (4, 10), [WIDE[0, :10]])
