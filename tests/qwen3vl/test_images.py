"""Images cut into patches, held bit by bit against transformers' processor."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from backends.base import RequestError
from backends.qwen3vl.images import ImageLimits, grid_of, image_tokens, patches, resized_size

LIMITS = ImageLimits(65_536, 16_777_216)  # of the released checkpoints
SMALL = ImageLimits(9_216, 25_600)


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference(pixels: NDArray[np.uint8], limits: ImageLimits, **options: Any) -> tuple[Any, tuple[int, ...]]:
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    options = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **options}
    size = {"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels}
    out = Qwen2VLImageProcessorPil(size=size, **options)(images=Image.fromarray(pixels), return_tensors="np")
    return out["pixel_values"], tuple(out["image_grid_thw"][0].tolist())


SIZES = [(1, 1), (10, 2000), (333, 517), (48, 80), (64, 64), (1920, 1080)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("limits", [LIMITS, SMALL], ids=["released", "small"])
def test_patches_are_those_of_transformers_to_the_last_bit(
    width: int, height: int, limits: ImageLimits
) -> None:
    pixels = noise(width, height)
    expected, expected_grid = reference(pixels, limits)
    got, grid = patches(pixels, limits)
    assert grid == expected_grid == grid_of(width, height, limits)
    assert (got.dtype, got.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(got, expected)


def test_a_photo_above_the_limit_is_brought_down_to_the_same_bits() -> None:
    pixels = np.tile(noise(500, 400), (10, 10, 1))  # 5000 x 4000
    expected, expected_grid = reference(pixels, LIMITS)
    got, grid = patches(pixels, LIMITS)
    assert grid == expected_grid
    assert grid[1] * grid[2] * 256 <= LIMITS.max_pixels
    assert np.array_equal(got, expected)


def test_bit_equality_notices_what_it_must() -> None:
    pixels = noise(333, 517)
    got, _ = patches(pixels, LIMITS)
    bilinear, _ = reference(pixels, LIMITS, resample=2)
    assert not np.array_equal(got, bilinear)
    other_colours, _ = patches(np.ascontiguousarray(pixels[..., ::-1]), LIMITS)
    assert not np.array_equal(got, other_colours)
    assert not np.array_equal(got, got.reshape(-1, 3, 2, 16, 16).swapaxes(3, 4).reshape(got.shape))


def test_all_256_values_are_normalised_as_transformers_does() -> None:
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 192).reshape(128, 128, 3)
    limits = ImageLimits(1024, 16_384)
    expected, _ = reference(pixels, limits)
    got, _ = patches(pixels, limits)
    assert len(np.unique(got)) == 256
    assert np.array_equal(got, expected)
    naive = (pixels.astype(np.float32) - 127.5) / 127.5
    assert not np.array_equal(np.unique(naive), np.unique(got)), "the order of rounding must be seen here"


def test_an_image_that_has_its_size_already_is_not_touched() -> None:
    pixels = np.arange(64 * 96 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 96, 3)
    pixels.flags.writeable = False
    rows, grid = patches(pixels, ImageLimits(1024, 10_000))
    assert grid == (1, 4, 6)
    # second block of the first strip, its lower left patch, green, second frame: rows 16-31, columns 32-47
    patch = rows[4 + 2].reshape(3, 2, 16, 16)[1, 1]
    assert np.array_equal(np.rint(patch * 127.5 + 127.5), pixels[16:32, 32:48, 1])


def test_a_view_with_steps_gives_what_its_copy_gives() -> None:
    pixels = noise(128, 96)
    turned = pixels[::-1, ::-1]
    assert np.array_equal(patches(turned, SMALL)[0], patches(np.ascontiguousarray(turned), SMALL)[0])
    assert not np.array_equal(patches(turned, SMALL)[0], patches(pixels, SMALL)[0])


def smart_resize(width: int, height: int, limits: ImageLimits) -> tuple[int, int]:
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as reference

    down, across = reference.smart_resize(height, width, 32, limits.min_pixels, limits.max_pixels)
    return across, down


@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.sampled_from([LIMITS, SMALL, ImageLimits(1, 1), ImageLimits(1024, 1024), ImageLimits(10**6, 10**6)]),
)
def test_sizes_are_those_of_smart_resize(width: int, height: int, limits: ImageLimits) -> None:
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(RequestError):
            resized_size(width, height, limits)
        return
    size = resized_size(width, height, limits)
    assert size == smart_resize(width, height, limits)
    assert all(side > 0 and side % 32 == 0 for side in size)
    grid = grid_of(width, height, limits)
    assert image_tokens(grid) == size[0] * size[1] // 1024 == grid[1] * grid[2] // 4


def test_half_a_block_is_rounded_to_the_even_number() -> None:
    limits = ImageLimits(1, LIMITS.max_pixels)
    assert resized_size(48, 80, limits) == (64, 64)  # 1.5 -> 2 and 2.5 -> 2
    assert resized_size(112, 144, limits) == (128, 128)  # 3.5 -> 4 and 4.5 -> 4


def test_one_side_may_be_200_times_the_other_and_no_more() -> None:
    assert resized_size(10, 2000, LIMITS) == smart_resize(10, 2000, LIMITS)
    for width, height in ((10, 2001), (2001, 10), (1, 3000)):
        with pytest.raises(RequestError, match=f"{width} x {height}") as caught:
            resized_size(width, height, LIMITS)
        assert caught.value.code == "image_aspect_ratio"
    with pytest.raises(RequestError):
        patches(noise(10, 2001), LIMITS)


def test_limits_are_checked_where_they_are_made() -> None:
    for least, most in ((0, 10), (11, 10), (-5, -1)):
        with pytest.raises(RequestError, match="min_pixels"):
            ImageLimits(least, most)
    with pytest.raises(RequestError, match="min_pixels"):
        replace(LIMITS, max_pixels=1024)
