"""The checkpoint's own vision tower in PyTorch: what it loads, and what it says when it cannot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from safetensors.torch import load_file, save_file  # noqa: E402

from backends.base import BackendError, Runtime  # noqa: E402
from backends.onnx.torch_vision import TorchVisionEncoder  # noqa: E402
from tests import tiny  # noqa: E402
from tests.qwen3vl import towers  # noqa: E402

RUNTIME = Runtime(device="cpu", dtype="fp32", threads=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def visual() -> Any:
    return tiny.model().model.visual


def test_torch_loads_the_tower_and_nothing_else(checkpoint: Path, visual: Any) -> None:
    tower = TorchVisionEncoder(checkpoint, RUNTIME)._tower
    ours, theirs = (dict(module.named_parameters()) for module in (tower, visual))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_torch_names_what_a_checkpoint_lacks(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    nothing = r"model\.safetensors is missing; only safetensors weights are loaded"
    with pytest.raises(BackendError, match=nothing) as caught:
        TorchVisionEncoder(tmp_path, RUNTIME)
    assert caught.value.code == "model_invalid"
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.visual.merger.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match=r"no tensor 'model\.visual\.merger\.norm\.weight'") as caught:
        TorchVisionEncoder(tmp_path, RUNTIME)
    assert caught.value.code == "model_invalid"


def test_torch_in_bf16_stays_near(checkpoint: Path, visual: Any) -> None:
    coarse = TorchVisionEncoder(checkpoint, replace(RUNTIME, dtype="bf16"))
    values, grid = towers.patches([(16, 16)])
    near = towers.cosine(towers.flat(coarse.encode(values, grid)), towers.reference(visual, values, grid))
    assert 0.999 < near < 0.999999
