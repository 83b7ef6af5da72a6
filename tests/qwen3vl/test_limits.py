"""A folder's image settings: read with the precedence, defaults and tolerances that transformers has."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backends.base import BackendError
from backends.qwen3vl.images import SETTINGS, ImageLimits, patches

NEWER, OLDER = SETTINGS
LIMITS = ImageLimits(65_536, 16_777_216)  # of the released checkpoints
PREPROCESSOR: dict[str, Any] = {
    "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
ABSENT = object()
SMALL = {"shortest_edge": 4096, "longest_edge": 8192}


def settings(**changes: object) -> dict[str, object]:
    return {key: value for key, value in {**PREPROCESSOR, **changes}.items() if value is not ABSENT}


def write(folder: Path, name: str, values: object) -> Path:
    (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return folder


def written(folder: Path, **changes: object) -> Path:
    return write(folder, OLDER, settings(**changes))


PIXELS = np.random.default_rng(0).integers(0, 256, (200, 280, 3), dtype=np.uint8)


def reference(folder: Path) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """What transformers makes of an image with the folder's settings."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3VLConfig()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, config=config, backend="pil")
    out = processor(images=Image.fromarray(PIXELS), return_tensors="np")
    return out["pixel_values"], tuple(out["image_grid_thw"][0].tolist())


def same(folder: Path) -> bool:
    expected, expected_grid = reference(folder)
    got, grid = patches(PIXELS, ImageLimits.read(folder))
    return grid == expected_grid and np.array_equal(got, expected)


READ: list[dict[str, object]] = [
    {},
    {"size": ABSENT},
    {"size": None},
    {"size": SMALL},
    {"size": {"shortest_edge": 4096.0, "longest_edge": 8192.0}},
    {"min_pixels": 4096, "max_pixels": 8192},
    {"min_pixels": 4096.0, "max_pixels": 8192.0, "size": ABSENT},
    {"max_pixels": 8192, "size": ABSENT},
    {"min_pixels": None, "max_pixels": None},
    {"min_pixels": 4096, "max_pixels": 8192, "size": {"min_pixels": 1, "max_pixels": 2}},
    {"image_mean": ABSENT},
    {"image_std": ABSENT},
    {"image_mean": ABSENT, "image_std": ABSENT},
    {"image_mean": [0.48, 0.45, 0.4], "image_std": 0.25},
    {"image_mean": 0, "image_std": [1, 1, 1]},
    {"temporal_patch_size": ABSENT, "merge_size": ABSENT},
    {"image_processor_type": ABSENT},
    {"image_processor_type": "Qwen2VLImageProcessor"},
    {"image_processor_type": "Qwen2VLImageProcessorPil"},
    {"resample": 3},
    {"resample": 2},
    {"resample": 1},
    {"resample": 0},
    {"resample": "bicubic"},
    {"resample": "lanczos"},
    {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True},
    {"do_rescale": False},
    {"do_normalize": False},
    {"do_normalize": False, "do_rescale": None, "image_mean": None, "rescale_factor": None},
    {"rescale_factor": 0.00392156862745098},
    {"rescale_factor": 0.004},
    {"rescale_factor": 1},
    {"do_center_crop": None, "crop_size": None, "do_pad": None, "device": None, "return_tensors": None},
]


@pytest.mark.parametrize("changes", READ, ids=str)
def test_an_image_becomes_what_it_becomes_in_transformers(tmp_path: Path, changes: dict[str, object]) -> None:
    assert same(written(tmp_path, **changes))
    older, newer = settings(**changes), tmp_path / "newer"
    (tmp_path / OLDER).unlink()
    write(tmp_path, NEWER, {"image_processor": older, "processor_class": "Qwen3VLProcessor"})
    assert same(tmp_path)
    newer.mkdir()
    assert same(write(write(newer, OLDER, settings()), NEWER, {"image_processor": older}))


@pytest.mark.parametrize("changes", [{"resample": "bicubic"}, {"image_mean": ABSENT}, {"do_rescale": False}])
def test_settings_that_were_passed_over_would_be_noticed(tmp_path: Path, changes: dict[str, object]) -> None:
    expected, _ = reference(written(tmp_path, **changes))
    got, _ = patches(PIXELS, ImageLimits.read(written(tmp_path)))
    assert got.shape == expected.shape
    assert not np.array_equal(got, expected)


REFUSED: list[dict[str, object]] = [
    {"patch_size": 14},
    {"patch_size": ABSENT},
    {"patch_size": None},
    {"patch_size": "16"},
    {"patch_size": 16.0},
    {"merge_size": 4},
    {"merge_size": None},
    {"temporal_patch_size": 1},
    {"image_mean": [0.5, 0.5]},
    {"image_mean": None},
    {"image_mean": "half"},
    {"image_std": [0.5, 0.5, 0]},
    {"image_std": [0.5, 0.5, float("inf")]},
    {"do_resize": False},
    {"do_resize": None},
    {"resample": None},
    {"resample": 99},
    {"rescale_factor": None},
    {"rescale_factor": "1"},
    {"size": {"height": 448, "width": 448}},
    {"size": {"shortest_edge": 4096}},
    {"size": {"shortest_edge": 4096, "longest_edge": None}},
    {"size": {**SMALL, "height": 448}},
    {"size": 4096},
    {"size": {}},
    {"size": {"shortest_edge": 4096.5, "longest_edge": 8192}},
    {"min_pixels": "many"},
    {"max_pixels": 0},
    {"max_pixels": 60_000},
    {"image_processor_type": "CLIPImageProcessor"},
    {"image_processor_type": "Qwen3VLImageProcessor"},
    {"auto_map": {"AutoImageProcessor": "x.Y"}},
]


@pytest.mark.parametrize("changes", REFUSED, ids=str)
@pytest.mark.parametrize("file", SETTINGS)
def test_another_preprocessing_is_refused_by_name(
    tmp_path: Path, file: str, changes: dict[str, object]
) -> None:
    values = settings(**changes)
    write(tmp_path, file, {"image_processor": values} if file == NEWER else values)
    with pytest.raises(BackendError) as caught:
        ImageLimits.read(tmp_path)
    assert caught.value.code == "model_invalid"
    assert str(tmp_path / file) in str(caught.value)
    assert next(iter(changes)) in str(caught.value) or "size" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_side_of_patches_that_is_left_out_is_told_with_what_it_then_is(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"must be 16 \(left out, it is 14 to transformers\)"):
        ImageLimits.read(written(tmp_path, patch_size=ABSENT))


@pytest.mark.parametrize("newer", [{}, {"image_processor": None}, {"processor_class": "Qwen3VLProcessor"}])
def test_the_older_file_is_read_where_the_newer_has_no_image_settings(tmp_path: Path, newer: object) -> None:
    write(written(tmp_path, size=SMALL), NEWER, newer)
    assert ImageLimits.read(tmp_path) == ImageLimits(4096, 8192)
    assert same(tmp_path)


def test_the_newer_file_is_read_where_both_have_image_settings(tmp_path: Path) -> None:
    write(written(tmp_path), NEWER, {"image_processor": settings(size=SMALL)})
    assert ImageLimits.read(tmp_path) == ImageLimits(4096, 8192) != LIMITS
    assert same(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"image_processor": "a"}', '{"image_processor": []}'])
def test_a_newer_file_that_is_damaged_is_not_passed_over(tmp_path: Path, content: str) -> None:
    (written(tmp_path) / NEWER).write_text(content)
    with pytest.raises(BackendError, match=NEWER):
        ImageLimits.read(tmp_path)


def test_a_folder_without_settings_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=rf"no image settings; copy {OLDER} or {NEWER}"):
        ImageLimits.read(tmp_path)
    write(tmp_path, NEWER, {"processor_class": "Qwen3VLProcessor"})
    with pytest.raises(BackendError, match="no image settings"):
        ImageLimits.read(tmp_path)


def test_limits_are_read_from_both_spellings(tmp_path: Path) -> None:
    assert ImageLimits.read(written(tmp_path)) == LIMITS
    older = {"size": ABSENT, "min_pixels": 4096, "max_pixels": 8192}
    assert ImageLimits.read(written(tmp_path, **older)) == ImageLimits(4096, 8192)
    assert ImageLimits.read(written(tmp_path, max_pixels=70_000)) == ImageLimits(65_536, 70_000)


def test_limits_are_read_from_what_transformers_writes(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    options = {key: value for key, value in PREPROCESSOR.items() if key != "image_processor_type"}
    Qwen2VLImageProcessorPil(**options).save_pretrained(tmp_path)
    assert ImageLimits.read(tmp_path) == LIMITS
