"""What an export says of itself, and that every way of damaging it is found and named."""

import os
import shutil
from pathlib import Path

import pytest

from backends.base import BackendError
from backends.store import (
    Manifest,
    MatrixError,
    Recipe,
    Source,
    check_folder,
    check_sizes,
    checks,
    verify_folder,
)
from tests import stand_in

RECIPE = Recipe(int8_layers=frozenset({3, 1}), block_size=64)
SOURCE = Source("org/model", "0" * 40, "f" * 64)
FILES = ("chat_template.jinja", "config.json", "decoder.onnx", "text.onnx", "vision.onnx", "weights.data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source, out = tmp_path / "source", tmp_path / "export"
    source.mkdir()
    out.mkdir()
    (source / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (source / "chat_template.jinja").write_text("{{ messages }}")
    matrices = stand_in.export(source, out, RECIPE, lambda *_: None)
    Manifest.describe(out, SOURCE, RECIPE, matrices).write(out)
    return out


def refusal(folder: Path, seen: Path | None = None) -> str:
    with pytest.raises(BackendError) as raised:
        check_folder(folder, seen)
    assert raised.value.code == "model_invalid"
    return str(raised.value)


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    manifest = Manifest.read(folder)
    assert (manifest.source, manifest.recipe, manifest.matrices) == (SOURCE, RECIPE, stand_in.MATRICES)
    assert tuple(manifest.files) == FILES
    assert manifest.size == sum((folder / name).stat().st_size for name in FILES)


def test_errors_of_any_number_type_are_kept(folder: Path) -> None:
    import numpy as np

    matrices = [
        MatrixError("w", 4, 32, np.float32(0.5)),
        MatrixError("v", 4, 128, 0.5, np.float32(0.25), 0.75),
    ]
    Manifest.describe(folder, SOURCE, RECIPE, matrices).write(folder)
    assert Manifest.read(folder).matrices == tuple(matrices)
    assert (folder / "manifest.json").read_text().count("output_error") == 2


def test_a_whole_export_passes_every_check(folder: Path, tmp_path: Path) -> None:
    assert (
        check_sizes(folder)
        == check_folder(folder)
        == check_folder(folder, tmp_path / "seen")
        == Manifest.read(folder)
    )
    assert verify_folder(folder) == []


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_one_flipped_bit_is_found_by_name(folder: Path, name: str) -> None:
    file = folder / name
    data = bytearray(file.read_bytes())
    for place in range(0, len(data), max(1, len(data) // 40)):
        bit = 1 << (place % 8)
        data[place] ^= bit
        file.write_bytes(data)
        assert [damage.file for damage in verify_folder(folder)] == [name]
        data[place] ^= bit
    file.write_bytes(data)
    assert verify_folder(folder) == []


def test_a_flipped_bit_anywhere_in_the_manifest_counts(folder: Path) -> None:
    file = folder / "manifest.json"
    data = bytearray(file.read_bytes())
    for place in range(0, len(data), 7):
        data[place] ^= 1 << (place % 8)
        file.write_bytes(data)
        with pytest.raises(BackendError, match=r"manifest\.json"):
            Manifest.read(folder)
        data[place] ^= 1 << (place % 8)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_size_is_named_with_both_sizes(folder: Path, name: str) -> None:
    file = folder / name
    whole = file.read_bytes()
    size = len(whole)
    for cut in (0, size // 2, size + 1):
        file.write_bytes((whole + b"x")[:cut])
        for attempt in (check_sizes, check_folder):
            with pytest.raises(BackendError, match=rf"{name} has {cut} bytes, {size} expected"):
                attempt(folder)
    file.unlink()
    assert f"{name} is missing, {size} bytes expected" in refusal(folder)


def test_all_the_damaged_files_are_named_at_once(folder: Path) -> None:
    (folder / "text.onnx").unlink()
    (folder / "weights.data").write_bytes(b"")
    message = refusal(folder)
    assert "text.onnx is missing" in message
    assert "weights.data has 0 bytes" in message
    assert [damage.file for damage in verify_folder(folder)] == ["text.onnx", "weights.data"]


def test_two_files_that_changed_places_are_both_named(folder: Path) -> None:
    (folder / "text.onnx").rename(folder / "aside")
    (folder / "vision.onnx").rename(folder / "text.onnx")
    (folder / "aside").rename(folder / "vision.onnx")
    message = refusal(folder)
    assert "text.onnx has 1000 bytes, 2000 expected" in message
    assert "vision.onnx has 2000 bytes, 1000 expected" in message


def test_only_regular_files_are_read(folder: Path, tmp_path: Path) -> None:
    file = folder / "weights.data"
    outside = tmp_path / "outside"
    shutil.move(file, outside)
    os.symlink(outside, file)
    assert "weights.data is not a regular file" in refusal(folder)
    file.unlink()
    os.link(outside, file)
    assert "weights.data has another name elsewhere" in refusal(folder)
    file.unlink()
    os.mkfifo(file)
    assert "weights.data is not a regular file" in refusal(folder)
    assert [damage.file for damage in verify_folder(folder)] == ["weights.data"]


def test_a_manifest_cannot_name_files_elsewhere(folder: Path) -> None:
    manifest = Manifest.read(folder)
    for name in ("../secret", "/etc/passwd", "a/b", "..", "manifest.json", ""):
        files = {name: manifest.files["config.json"]}
        Manifest(SOURCE, RECIPE, (), files).write(folder)
        with pytest.raises(BackendError, match="is damaged"):
            Manifest.read(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "files": 3}']
)
def test_what_is_no_manifest_is_named(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    assert str(folder / "manifest.json") in refusal(folder)
    assert [damage.file for damage in verify_folder(folder)] == ["manifest.json"]


def test_big_files_are_read_once_and_again_when_they_change(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    read = []
    monkeypatch.setattr(checks, "SMALL", 10_000)  # weights.data is a big file then
    hashed = checks.sha256
    monkeypatch.setattr(checks, "sha256", lambda path: read.append(path.name) or hashed(path))
    seen = tmp_path / "cache" / "seen.json"
    check_folder(folder, seen)
    assert "weights.data" in read
    read.clear()
    check_folder(folder, seen)
    assert read == [name for name in FILES if name != "weights.data"]
    flip(folder / "weights.data")
    assert "weights.data has the right size and another content" in refusal(folder, seen)
    assert "weights.data" in read


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"\xff", b'{"weights.data": 1}'])
def test_a_damaged_memory_of_what_was_read_is_a_miss(folder: Path, tmp_path: Path, junk: bytes) -> None:
    seen = tmp_path / "seen.json"
    seen.write_bytes(junk)
    assert check_folder(folder, seen)
    flip(folder / "weights.data")
    assert "weights.data" in refusal(folder, seen)


def test_without_a_place_to_remember_everything_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "file" / "seen.json"
    assert check_folder(folder, nowhere)
    flip(folder / "weights.data")
    assert "weights.data" in refusal(folder, nowhere)
