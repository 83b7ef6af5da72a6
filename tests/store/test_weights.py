"""Checkpoints are read as their own library reads them; damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from backends.base import BackendError
from backends.store import Weights

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

TENSORS = {
    "half": torch.randn(5, 7).half(),
    "brain": torch.randn(6, 4).bfloat16(),
    "single": torch.randn(3),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    safetensors.save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


def sharded(folder: Path) -> Path:
    shards = {f"part-{name}.safetensors": {name: tensor} for name, tensor in TENSORS.items()}
    for file, tensors in shards.items():
        safetensors.save_file(tensors, folder / file)
    index = {"weight_map": {name: f"part-{name}.safetensors" for name in TENSORS}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", TENSORS)
def test_every_stored_type_becomes_its_float32(folder: Path, name: str) -> None:
    got = Weights(folder).read(name)
    assert got.dtype == np.float32
    assert np.array_equal(got, TENSORS[name].float().numpy())


def test_rows_are_a_part_of_the_tensor(folder: Path) -> None:
    assert np.array_equal(Weights(folder).read("brain", slice(2, 5)), TENSORS["brain"][2:5].float().numpy())
    assert len(Weights(folder).read("brain", slice(5, 99))) == 1


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    weights = Weights(sharded(tmp_path))
    assert set(weights.names) == set(TENSORS)
    assert all(np.array_equal(weights.read(name), TENSORS[name].float().numpy()) for name in TENSORS)


def test_progress_reaches_all_bytes_once(folder: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    weights = Weights(folder, lambda *step: steps.append(step))
    for name in (*weights.names, "single"):
        weights.read(name)
    total = sum(tensor.nbytes for tensor in TENSORS.values())
    assert steps[-1] == ("single", total, total)
    assert steps[0][1] < total


@pytest.mark.parametrize("cut", [1, 40, 4])
def test_a_file_cut_short_is_named(folder: Path, cut: int) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-cut] if cut < 40 else content[:cut])
    with pytest.raises(BackendError, match=r"model\.safetensors is damaged"):
        Weights(folder)


def test_a_file_cut_after_it_was_opened_is_named(folder: Path) -> None:
    weights = Weights(folder)
    file = folder / "model.safetensors"
    last = weights.names[-1]
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BackendError, match="cut short"):
        weights.read(last)


def test_a_missing_tensor_or_another_shape_is_named(folder: Path) -> None:
    with pytest.raises(BackendError, match="no tensor 'lm_head'"):
        Weights(folder).shape("lm_head")
    with pytest.raises(BackendError, match=r"'half' has shape \[5, 7\], config.json asks for \[7, 5\]"):
        Weights(folder).expect("half", (7, 5))


def test_an_index_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    index = {"weight_map": {"half": "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BackendError, match="files of its own folder"):
        Weights(tmp_path)


@pytest.mark.parametrize(
    "named", ["../w.safetensors", "/w.safetensors", "pytorch_model.bin", 3, "a\n.safetensors"]
)
def test_config_json_cannot_point_outside_its_folder(folder: Path, named: object) -> None:
    (folder / "config.json").write_text(json.dumps({"transformers_weights": named}))
    with pytest.raises(BackendError, match="transformers_weights must be a safetensors file of its folder"):
        Weights(folder)


@pytest.mark.parametrize("named", ["other.safetensors", "other.safetensors.index.json"])
def test_a_file_that_config_json_names_must_be_there(folder: Path, named: str) -> None:
    (folder / "config.json").write_text(json.dumps({"transformers_weights": named}))
    with pytest.raises(BackendError, match=rf"{named} is missing"):
        Weights(folder)


def test_quantised_checkpoints_are_refused(tmp_path: Path) -> None:
    safetensors.save_file({"w": torch.zeros(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(BackendError, match="'w' is stored as I8"):
        Weights(tmp_path).read("w")


def test_double_precision_is_read_as_float32(tmp_path: Path) -> None:
    values = torch.randn(3, 5, dtype=torch.float64)
    safetensors.save_file({"w": values}, tmp_path / "model.safetensors")
    assert np.array_equal(Weights(tmp_path).read("w"), values.float().numpy())
    safetensors.save_file({"w": values * 1e60}, tmp_path / "model.safetensors")
    with pytest.raises(BackendError, match="'w' holds values that are not finite"):
        Weights(tmp_path).read("w")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", TENSORS)
def test_a_value_that_is_no_finite_number_is_refused_where_it_is_read(
    folder: Path, name: str, value: float
) -> None:
    largest = torch.finfo(TENSORS[name].dtype)
    tensor = torch.full((6, 4), largest.max, dtype=TENSORS[name].dtype)
    tensor[1, 1], tensor[2, 2], tensor[3, 3] = largest.min, largest.tiny, 0
    safetensors.save_file({name: tensor}, folder / "model.safetensors")
    assert np.array_equal(Weights(folder).read(name), tensor.float().numpy())
    tensor[4, 1] = value
    safetensors.save_file({name: tensor}, folder / "model.safetensors")
    assert Weights(folder).read(name, slice(0, 4)).shape == (4, 4)
    with pytest.raises(BackendError, match=rf"model\.safetensors: '{name}' holds values that are not finite"):
        Weights(folder).read(name, slice(4, 5))


def test_tensors_of_any_number_format_may_stand_beside_those_that_are_read(folder: Path) -> None:
    kinds = (torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2)
    others = {str(kind): torch.zeros(3, dtype=kind) for kind in kinds}
    safetensors.save_file({**TENSORS, **others}, folder / "model.safetensors")
    weights = Weights(folder)
    assert set(weights.shapes) == set(TENSORS)
    assert np.array_equal(weights.read("single"), TENSORS["single"].numpy())
    with pytest.raises(BackendError, match=r"'torch\.bool' is stored as BOOL"):
        weights.read("torch.bool")
