"""The numbers that place an image's patches, held against transformers' own."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.qwen3vl.config import VisionConfig
from backends.qwen3vl.tower import VisionPositions, vision_positions

GRIDS = [(2, 2), (16, 16), (24, 24), (18, 24), (2, 60), (60, 2), (64, 96), (48, 48), (2, 400)]
REAL = VisionConfig(
    hidden=1024,
    depth=24,
    heads=16,
    intermediate=4096,
    out_hidden=2048,
    patch=16,
    temporal_patch=2,
    merge=2,
    position_embeddings=2304,
    deepstack=(5, 11, 17),
)
EIGHT_BILLION = replace(REAL, hidden=1152, depth=27, intermediate=4304, out_hidden=4096)
TINY = replace(REAL, hidden=32, heads=2, position_embeddings=64)


def reference(rows: int, columns: int, config: VisionConfig) -> list[NDArray[np.generic]]:
    """What transformers' tower computes from the grid; its cos and sin repeat their first half."""
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("transformers.vision_utils")
    modeling = pytest.importorskip("transformers.models.qwen3_vl.modeling_qwen3_vl")
    grid = torch.tensor([[1, rows, columns]])
    taps = utils.get_vision_interpolation_indices_and_weights(
        grid, config.side, align_corners=True, spatial_merge_size=config.merge
    )
    shape = modeling.Qwen3VLVisionConfig(hidden_size=config.hidden, num_heads=config.heads)
    rotary = modeling.Qwen3VLVisionRotaryEmbedding(shape)
    angles = rotary(torch.zeros(1), utils.get_vision_position_ids(grid, config.merge))
    half = config.hidden // config.heads // 2
    for angle in angles:
        assert torch.equal(angle[:, :half], angle[:, half:])
    return [*(tap.numpy() for tap in taps), *(angle[:, :half].numpy() for angle in angles)]


def distances(ours: VisionPositions, theirs: list[NDArray[np.generic]]) -> list[float]:
    return [float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("config", [REAL, EIGHT_BILLION, TINY], ids=["2b", "8b", "tiny"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_places_are_those_of_transformers(grid: tuple[int, int], config: VisionConfig) -> None:
    ours = vision_positions(*grid, config)
    theirs = reference(*grid, config)
    indices, weights, *angles = distances(ours, theirs)
    assert indices == weights == 0
    # the power of theta may differ in its last bit, which 400 columns multiply
    assert max(angles) <= 1e-7 * max(grid) + 3e-7
    assert [a.dtype for a in ours] == [b.dtype for b in theirs]
    assert [a.shape for a in ours] == [b.shape for b in theirs]


def test_rows_and_columns_are_not_exchangeable() -> None:
    wrong = distances(vision_positions(24, 18, REAL), reference(18, 24, REAL))
    assert min(wrong[0], 1) == 1
    assert min(wrong[1:]) > 0.1


def test_patches_of_a_block_come_one_after_the_other() -> None:
    # on a grid of the table's own size every patch stands on one entry
    ours = vision_positions(48, 48, REAL)
    entries = np.take_along_axis(ours.indices, ours.weights.argmax(1)[:, None], 1)[:, 0]
    assert entries[:8].tolist() == [0, 1, 48, 49, 2, 3, 50, 51]
    assert sorted(entries.tolist()) == list(range(2304))
