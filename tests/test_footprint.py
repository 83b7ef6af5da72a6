"""How much memory a model takes, told from its files."""

import shutil
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from backends import BackendError, Runtime, Traits
from backends.export.sizes import estimate
from backends.machine import Processor, reference_format, total_memory, weight_format
from backends.store import Recipe, Weights
from router.estimates import TOKENS, Footprint, footprint
from router.models import Model, find
from tests import stand_in

CHECKPOINTS, EXPORTS = Traits(sees_images=True), Traits(sees_images=True, reads_export=True)
FP32, BF16 = Runtime(dtype="fp32"), Runtime(dtype="bf16")
OLD = Processor("x86_64", "", frozenset({"avx2"}))
NEW = Processor("x86_64", "", frozenset({"avx2", "avx512_bf16"}))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))


def weights_of(folder: Path) -> int:
    weights = Weights(folder)
    return sum(prod(weights.shape(name)) for name in weights.names)


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(999, "does not fit"), (1000, "tight"), (1249, "tight"), (1250, "fits"), (10_000, "fits")],
)
def test_an_estimate_fits_with_a_fifth_to_spare(free: int, verdict: str) -> None:
    need = Footprint(libraries=400, weights=300, cache=200, image=100)
    assert need.total == 1000
    assert need.verdict(free) == verdict


def test_a_checkpoints_weights_take_what_their_format_does() -> None:
    model = find()
    wide, narrow = (footprint(model, CHECKPOINTS, runtime) for runtime in (FP32, BF16))
    assert wide.weights == 4 * weights_of(model.folder)
    assert narrow.weights == wide.weights / 2
    assert narrow.cache == wide.cache / 2
    # scenes: 4 layers, 2 heads of 32 values, keys and values
    assert wide.cache == 2 * 4 * 2 * 32 * 4 * TOKENS
    assert wide.image == narrow.image > 0


def test_a_backend_that_sees_no_images_takes_nothing_for_them() -> None:
    blind = replace(CHECKPOINTS, sees_images=False)
    assert footprint(find(), blind, FP32).image == 0


def test_an_export_takes_its_files_and_the_tower_only_for_images() -> None:
    folder = stand_in.ensure(find())
    sizes = stand_in.SIZES
    seeing = footprint(find(), EXPORTS, FP32)
    blind = footprint(find(), replace(EXPORTS, sees_images=False), FP32)
    assert seeing.weights == sum(sizes.values())
    assert blind.weights == sum(sizes.values()) - sizes["vision.onnx"]
    (folder / "preprocessor_config.json").write_bytes(
        (find().folder / "preprocessor_config.json").read_bytes()
    )
    assert footprint(Model("export", folder), EXPORTS, FP32) == seeing


def test_an_export_that_is_not_there_yet_is_estimated() -> None:
    expected = estimate(find().folder, Recipe())
    assert footprint(find(), EXPORTS, FP32).weights == expected
    stand_in.ensure(find(), stand_in.INT8)  # another recipe's tells nothing
    assert footprint(find(), EXPORTS, FP32).weights == expected


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find().folder, folder)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(BackendError, match=r"model\.safetensors is damaged"):
        footprint(Model("model", folder), CHECKPOINTS, FP32)


def holding(folder: Path) -> int:
    """Bytes of memory of which three quarters hold the weights in float32 and no byte more."""
    files = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return 2 * files * 4 // 3


def test_pytorch_takes_bf16_where_it_is_fast_or_nothing_else_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find().folder
    assert weight_format(folder, "auto", OLD) == "fp32"
    assert weight_format(folder, "auto", NEW) == "bf16"
    assert weight_format(folder, "fp32", NEW) == "fp32"
    assert weight_format(folder, "bf16", OLD) == "bf16"
    monkeypatch.setattr("backends.machine.total_memory", lambda: holding(folder) - 8)
    assert weight_format(folder, "auto", OLD) == "bf16"
    monkeypatch.setattr("backends.machine.total_memory", lambda: holding(folder) + 8)
    assert weight_format(folder, "auto", OLD) == "fp32"
    monkeypatch.setattr("backends.machine.total_memory", lambda: None)
    assert weight_format(folder, "auto", OLD) == "fp32"


def test_the_memory_pytorch_counts_on_is_the_containers(monkeypatch, tmp_path: Path) -> None:
    folder = find().folder
    (tmp_path / "meminfo").write_text(f"MemTotal: {1 << 40} kB\n")
    monkeypatch.setattr("backends.machine.total_memory", lambda: total_memory(tmp_path / "meminfo", tmp_path))
    assert weight_format(folder, "auto", OLD) == "fp32"
    (tmp_path / "memory.max").write_text(f"{holding(folder) - 8}\n")
    assert weight_format(folder, "auto", OLD) == "bf16"
    (tmp_path / "memory.max").write_text(f"{holding(folder) + 8}\n")
    assert weight_format(folder, "auto", OLD) == "fp32"


def test_a_reference_is_in_float32_whatever_is_fast_unless_it_is_not_free(monkeypatch) -> None:
    folder = find().folder
    for processor in (OLD, NEW):
        monkeypatch.setattr(Processor, "read", lambda: processor)  # noqa: B023
        monkeypatch.setattr("backends.machine.available_memory", lambda: holding(folder) + 8)
        assert reference_format(folder, "auto") == "fp32"
        assert reference_format(folder, "bf16") == "bf16"
        monkeypatch.setattr("backends.machine.available_memory", lambda: holding(folder) - 8)
        assert reference_format(folder, "auto") == "bf16"
        assert reference_format(folder, "fp32") == "fp32"
