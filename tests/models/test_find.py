"""Which folders are models, and how a damaged one is named before anything is loaded."""

import json
import struct
from pathlib import Path

import pytest

from backends.base import BackendError, RequestError
from router.models import find, home

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weights(values: int = 8) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(weights())
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(BackendError) as raised:
        find(str(folder))
    assert raised.value.code == "model_invalid"
    return str(raised.value)


def test_the_embedded_model_is_the_default() -> None:
    assert find() == find("scenes")
    assert find().name == "scenes"
    assert (find().folder / "config.json").is_file()


def test_a_checkpoint_folder_is_a_model(folder: Path) -> None:
    assert find(str(folder)).folder == folder
    assert find(str(folder)).name == folder.name


@pytest.mark.parametrize(
    "name",
    [
        "/no/such/folder",
        "~/no-such-folder",
        "~nobody-here/x",
        "nul\0",
        "",
        "no-such-model",
        "a/../b",
        "a--b/c",
    ],
)
def test_nothing_there_is_named(name: str) -> None:
    with pytest.raises(RequestError, match=f"no model folder at '{name}'") as raised:
        find(name)
    assert raised.value.code == "model_not_found"


def test_a_folder_without_config_is_no_checkpoint(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


def test_pickled_weights_are_not_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only safetensors weights are loaded" in refusal(folder)


@pytest.mark.parametrize("cut", [0, 4, 8, 30, -1])
def test_a_truncated_file_is_named(folder: Path, cut: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    assert f"{file} is damaged" in refusal(folder)


def test_a_file_that_is_too_long_is_named_with_both_sizes(folder: Path) -> None:
    file = folder / "model.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"x")
    assert f"{size + 1} bytes, {size} expected" in refusal(folder)


def test_junk_for_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html>" * 100)
    assert "is damaged" in refusal(folder)


def test_every_shard_of_an_index_must_be_there(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "model-1.safetensors")
    index = folder / INDEX
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert "model-2.safetensors is missing" in refusal(folder)
    (folder / "model-2.safetensors").write_bytes(weights())
    assert find(str(folder)).folder == folder


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_named(folder: Path, text: str) -> None:
    index = folder / INDEX
    index.write_text(text)
    assert find(str(folder)).folder == folder, "a single file comes before an index, as in transformers"
    (folder / SINGLE).unlink()
    assert str(index) in refusal(folder)


def test_an_index_cannot_point_elsewhere(folder: Path) -> None:
    (folder / SINGLE).unlink()
    index = folder / INDEX
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    assert "must name files of its own folder" in refusal(folder)


def test_the_home_is_where_the_environment_or_the_platform_says(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", "~/somewhere")
    assert home() == Path.home() / "somewhere"
    monkeypatch.delenv("HYBRID_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "hybrid"
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert home() == Path.home() / ".cache" / "hybrid"
    monkeypatch.setattr("sys.platform", "darwin")
    assert home() == Path.home() / "Library" / "Caches" / "hybrid"
