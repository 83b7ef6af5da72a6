"""The tower in another basis: the same function, and 8 bits that outlying channels do not spoil."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from backends.base import Runtime  # noqa: E402
from backends.export.graph import DataFile, Graph  # noqa: E402
from backends.export.vision.linear import Linears, Tensors  # noqa: E402
from backends.export.vision.rotation import Rotated, basis  # noqa: E402
from backends.export.vision.tower import Tower  # noqa: E402
from backends.onnx.vision import VisionEncoder  # noqa: E402
from backends.qwen3vl import Config, VisionConfig  # noqa: E402
from backends.store import Weights  # noqa: E402
from tests import tiny  # noqa: E402
from tests.qwen3vl import towers  # noqa: E402

GRIDS: list[towers.Grid] = [(18, 24), (2, 60)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> VisionConfig:
    return Config.read(checkpoint).vision


def encoded(out: Path, tensors: Tensors | Rotated, config: VisionConfig, precision: Any) -> list[towers.Rows]:
    """The features of two images by a tower of these tensors."""
    out.mkdir()
    with DataFile(out / "vision.data") as data:
        graph = Graph("vision", data)
        Tower(graph, tensors, config, Linears(graph, tensors, precision)).build()
    graph.save(out / "vision.onnx")
    return towers.flat(VisionEncoder(out, config, Runtime(device="cpu")).encode(*towers.patches(GRIDS)))


@pytest.mark.parametrize("size", [8, 16, 32, 72, 1152])
def test_the_basis_is_orthogonal_and_its_first_coordinate_the_mean(size: int) -> None:
    turn = basis(size)
    assert np.abs(turn.T @ turn - np.eye(size)).max() < 1e-5
    assert np.abs(turn).max() <= np.sqrt(2 / size) + 1e-6  # no channel stays where it is
    x = np.random.default_rng(0).normal(3, 1, (5, size)).astype(np.float32)
    coordinates = x @ turn
    coordinates[:, 0] = 0
    assert np.abs(coordinates @ turn.T - (x - x.mean(1, keepdims=True))).max() < 1e-5


def test_a_rotated_tower_computes_the_same(checkpoint: Path, config: VisionConfig, tmp_path: Path) -> None:
    theirs = towers.reference(tiny.model().model.visual, *towers.patches(GRIDS))
    rotated = Rotated(Weights(checkpoint), config)
    assert towers.distance(encoded(tmp_path / "a", rotated, config, "fp32"), theirs) <= 2e-5
    name = "model.visual.blocks.1.attn.proj.weight"
    assert np.abs(rotated.read(name) - Weights(checkpoint).read(name)).max() > 0.1


@pytest.mark.parametrize("module", ["attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_one_tensor_left_out_of_the_rotation_breaks_it(
    checkpoint: Path, config: VisionConfig, tmp_path: Path, module: str, part: str
) -> None:
    class Forgetful(Rotated):
        def read(self, name: str) -> NDArray[np.float32]:
            forgotten = name == f"model.visual.blocks.1.{module}.{part}"
            return Weights(checkpoint).read(name) if forgotten else super().read(name)

    theirs = towers.reference(tiny.model().model.visual, *towers.patches(GRIDS))
    ours = encoded(tmp_path / "a", Forgetful(Weights(checkpoint), config), config, "fp32")
    assert towers.distance(ours[:1], theirs[:1]) >= 100 * 2e-5


class Outlying(Weights):
    """A checkpoint whose norms make two channels fifty times larger than the others."""

    def read(self, name: str, rows: slice | None = None) -> NDArray[np.float32]:
        values = super().read(name, rows)
        if "blocks" in name and "norm" in name and name.endswith("weight"):
            values[:2] *= 50
        if name.endswith(("qkv.weight", "mlp.linear_fc1.weight")):
            values[:, :2] /= 7
        return values


def test_outlying_channels_do_not_spoil_eight_bits(
    checkpoint: Path, config: VisionConfig, tmp_path: Path
) -> None:
    weights = Outlying(checkpoint)
    exact = encoded(tmp_path / "exact", weights, config, "fp32")
    for precision in ("int8", "w8"):
        plain = encoded(tmp_path / f"{precision} plain", weights, config, precision)
        rotated = encoded(tmp_path / precision, Rotated(weights, config), config, precision)
        assert towers.cosine(plain, exact) < 0.99
        assert towers.cosine(rotated, exact) > 0.9995
