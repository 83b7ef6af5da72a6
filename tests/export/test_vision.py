"""The exported vision tower, run as a bare graph, against transformers."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from safetensors.torch import save_file  # noqa: E402

from backends.base import BackendError, Runtime  # noqa: E402
from backends.export.graph import FLOAT, DataFile, Graph  # noqa: E402
from backends.export.quantize import Rounded, quantise  # noqa: E402
from backends.export.vision import write  # noqa: E402
from backends.export.vision.linear import Linears  # noqa: E402
from backends.onnx.vision import VisionEncoder  # noqa: E402
from backends.qwen3vl import (  # noqa: E402
    Config,
    VisionConfig,
    vision_positions,
)
from backends.store import Recipe, Weights  # noqa: E402
from tests import tiny  # noqa: E402
from tests.qwen3vl import towers  # noqa: E402

Inputs = dict[str, Any]
IMAGES = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> VisionConfig:
    return Config.read(checkpoint).vision


@pytest.fixture(scope="module")
def visual() -> Any:
    return tiny.model().model.visual


@pytest.fixture(scope="module")
def exact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("exact")
    towers.export(checkpoint, out, "fp32")
    return session(out)


def session(out: Path, whole_sums: bool = True) -> Any:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", str(int(whole_sums)))
    return ort.InferenceSession(out / "vision.onnx", options, providers=["CPUExecutionProvider"])


def inputs(grid: towers.Grid, config: VisionConfig) -> Inputs:
    """Two images of one grid."""
    values, _ = towers.patches([grid] * IMAGES)
    placed = vision_positions(*grid, config)
    return {
        "patches": values.reshape(IMAGES, -1, 1536),
        "indices": placed.indices.T,
        "weights": placed.weights.T[..., None],
        "cos": placed.cos,
        "sin": placed.sin,
    }


def run(tower: Any, feed: Inputs) -> list[towers.Rows]:
    names = ["features", "deepstack.0", "deepstack.1", "deepstack.2"]
    return [part.reshape(-1, part.shape[-1]) for part in tower.run(names, feed)]


def expected(visual: Any, grid: towers.Grid) -> list[towers.Rows]:
    return towers.reference(visual, *towers.patches([grid] * IMAGES))


@pytest.mark.parametrize("grid", towers.GRIDS, ids=str)
def test_every_feature_equals_transformers(
    exact: Any, visual: Any, config: VisionConfig, grid: towers.Grid
) -> None:
    assert towers.distance(run(exact, inputs(grid, config)), expected(visual, grid)) <= 2e-5


def shift_patches(feed: Inputs) -> None:
    feed["patches"] = np.roll(feed["patches"], 1, 1)


def shift_interpolation(feed: Inputs) -> None:
    feed["indices"] = np.roll(feed["indices"], 1, 1)


def swap_shares(feed: Inputs) -> None:
    feed["weights"] = feed["weights"][[1, 0, 3, 2]]


def stop_rotating(feed: Inputs) -> None:
    feed["cos"], feed["sin"] = np.ones_like(feed["cos"]), np.zeros_like(feed["sin"])


@pytest.mark.parametrize("damage", [shift_patches, shift_interpolation, swap_shares, stop_rotating])
def test_a_wrong_input_breaks_the_equality(
    exact: Any, visual: Any, config: VisionConfig, damage: Callable[[Inputs], None]
) -> None:
    feed = inputs((18, 24), config)
    damage(feed)
    theirs = expected(visual, (18, 24))
    for ours, wanted in zip(run(exact, feed), theirs, strict=True):
        assert np.abs(ours - wanted).max() >= 100 * 2e-5


def test_rounded_towers_stay_near(checkpoint: Path, exact: Any, config: VisionConfig, tmp_path: Path) -> None:
    feed = inputs((18, 24), config)
    theirs = run(exact, feed)
    for precision in ("int8", "w8"):
        errors = towers.export(checkpoint, tmp_path / precision, precision)
        near = towers.cosine(run(session(tmp_path / precision), feed), theirs)
        assert 0.9995 <= near < 0.999999
        assert len(errors) == 4 * config.depth + 2 * 4  # all but the patch embedding
        assert {error.name for error in errors} <= set(Weights(checkpoint).names)
        assert 0.001 < max(error.error for error in errors) <= 0.01


@pytest.mark.parametrize("precision", ["int8", "w8"])
def test_scales_of_a_wrong_row_are_noticed(
    checkpoint: Path,
    exact: Any,
    config: VisionConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
) -> None:
    def shifted(*args: Any) -> Rounded:
        rounded = quantise(*args)
        return replace(rounded, scales=np.roll(rounded.scales, 1, 0))

    monkeypatch.setattr("backends.export.vision.linear.quantise", shifted)
    errors = towers.export(checkpoint, tmp_path, precision)
    feed = inputs((18, 24), config)
    assert towers.cosine(run(session(tmp_path), feed), run(exact, feed)) < 0.98
    assert min(error.error for error in errors) > 0.05


def test_a_float32_model_keeps_its_tower_in_float32(checkpoint: Path, tmp_path: Path) -> None:
    vision = Config.read(checkpoint).vision
    for name, recipe, rounded in (("a", Recipe(precision="fp32"), False), ("b", Recipe(), True)):
        (tmp_path / name).mkdir()
        assert bool(write(tmp_path / name, Weights(checkpoint), vision, recipe)) == rounded


@pytest.mark.parametrize("precision", ["fp32", "int8", "w8"])
def test_rows_of_any_length_are_multiplied(tmp_path: Path, precision: Any) -> None:
    """The 8B tower has rows of 4304 values, which no block size divides."""
    rng = np.random.default_rng(0)
    matrix, bias = rng.normal(size=(24, 269)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    x = rng.uniform(-1, 1, (3, 269)).astype(np.float32)
    weights = Given({"model.visual.odd.weight": matrix, "model.visual.odd.bias": bias})
    with DataFile(tmp_path / "vision.data") as data:
        graph = Graph("odd", data)
        Linears(graph, weights, precision).add(
            graph.input("x", FLOAT, [None, 269]), "odd", (24, 269), output="y"
        )
        graph.output("y", FLOAT, [None, 24])
    graph.save(tmp_path / "vision.onnx")
    got = session(tmp_path).run(None, {"x": x})[0]
    wanted = x @ matrix.T + bias
    error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
    assert error <= (1e-6 if precision == "fp32" else 0.02)
    assert np.linalg.norm(got - wanted + bias) / np.linalg.norm(wanted) > 0.05


class Given(Weights):
    """Weights out of a dictionary."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self.tensors = tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def read(self, name: str, rows: slice | None = None) -> Any:
        return self.tensors[name]


def test_a_tensor_of_another_shape_is_named(checkpoint: Path, tmp_path: Path, config: VisionConfig) -> None:
    for name, wrong in {
        "blocks.0.mlp.linear_fc1.weight": replace(config, intermediate=96),
        "patch_embed.proj.weight": replace(config, patch=14),
        "pos_embed.weight": replace(config, position_embeddings=49),
        "merger.linear_fc2.weight": replace(config, out_hidden=65, deepstack=()),
    }.items():
        (tmp_path / name).mkdir()
        with pytest.raises(BackendError, match=re.escape(f"'model.visual.{name}' has shape")) as caught:
            write(tmp_path / name, Weights(checkpoint), wrong, Recipe())
        assert caught.value.code == "model_invalid"


def test_a_missing_tensor_is_named(checkpoint: Path, tmp_path: Path, config: VisionConfig) -> None:
    with pytest.raises(BackendError, match=r"blocks\.4\.") as caught:
        write(tmp_path, Weights(checkpoint), replace(config, depth=5), Recipe())
    assert caught.value.code == "model_invalid"


@pytest.mark.slow
@pytest.mark.parametrize("shape", towers.SHAPES)
def test_a_tower_of_real_shape_equals_transformers(tmp_path: Path, shape: str) -> None:
    torch.manual_seed(0)
    model_config = tiny.config()
    settings = model_config.vision_config.to_dict() | towers.SHAPES[shape]
    model_config.vision_config = type(model_config.vision_config)(**settings)
    model_config.text_config.hidden_size = settings["out_hidden_size"]
    model_config.save_pretrained(tmp_path)
    visual = transformers.models.qwen3_vl.modeling_qwen3_vl.Qwen3VLVisionModel(model_config.vision_config)
    visual.eval()
    with torch.no_grad():
        for part in visual.parameters():  # not the buffers: rotary frequencies are never stored
            part.normal_(0, 0.3 if part.ndim == 1 else part[0].numel() ** -0.5)
            part.copy_(part.bfloat16())
    tensors = {f"model.visual.{name}": part.bfloat16() for name, part in visual.named_parameters()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    values, grid = towers.patches([(18, 24), (2, 60)])
    theirs = towers.reference(visual, values, grid)
    for precision, far in (("fp32", 2e-5), ("int8", None)):
        towers.export(tmp_path, tmp_path / precision, precision)  # type: ignore[arg-type]
        encoder = VisionEncoder(tmp_path / precision, Config.read(tmp_path).vision, Runtime(device="cpu"))
        ours = towers.flat(encoder.encode(values, grid))
        assert towers.cosine(ours, theirs) >= 0.999
        assert far is None or towers.distance(ours, theirs) <= far
