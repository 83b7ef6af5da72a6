"""Three positions a token, held against transformers' own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends.base import BackendError
from backends.qwen3vl.positions import position_ids

MERGE = 2
Layout = list[int | tuple[int, int]]  # text of so many tokens, or an image of (rows, columns) merged


def laid_out(layout: Layout) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Tokens, spans and grids of a layout."""
    spans, grid, place = [], [], 0
    for part in layout:
        if isinstance(part, int):
            place += part
            continue
        rows, columns = part
        spans.append((place, place + rows * columns))
        grid.append((1, rows * MERGE, columns * MERGE))
        place += rows * columns
    return place, np.array(spans, np.int64).reshape(-1, 2), np.array(grid, np.int64).reshape(-1, 3)


def reference(tokens: int, spans: NDArray[np.int64], grid: NDArray[np.int64]) -> tuple[Any, int]:
    """What transformers computes, without building a model: the method only asks for the merge size."""
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.qwen3_vl.modeling_qwen3_vl")
    model = modeling.Qwen3VLModel.__new__(modeling.Qwen3VLModel)
    torch.nn.Module.__init__(model)
    model.config = modeling.Qwen3VLConfig(vision_config={"spatial_merge_size": MERGE})
    kinds = torch.zeros(1, tokens, dtype=torch.int32)
    for first, end in spans.tolist():
        kinds[0, first:end] = 1
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    placed, delta = model.get_rope_index(ids, kinds, image_grid_thw=torch.from_numpy(grid))
    return placed[:, 0].numpy(), tokens + int(delta)


LAYOUTS: list[Layout] = [
    [1],
    [40],
    [3, (2, 2), 4],
    [1, (1, 9), 1],
    [1, (9, 1), 1, (1, 9), 2],
    [2, (4, 3), 1, (3, 4), 1, (8, 8), 5],
    [(3, 5)],  # nothing before it, nothing after it
    [5, (16, 2)],
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_positions_are_those_of_transformers(layout: Layout) -> None:
    tokens, spans, grid = laid_out(layout)
    expected, following = reference(tokens, spans, grid)
    got = position_ids(tokens, spans, grid, MERGE)
    assert got.ids.dtype == np.int64
    assert np.array_equal(got.ids, expected)
    assert got.next_position == following


def test_positions_are_those_of_transformers_for_many_layouts() -> None:
    rng = np.random.default_rng(7)
    for _ in range(100):
        layout: Layout = [int(rng.integers(1, 20))]
        for _ in range(rng.integers(0, 5)):
            # transformers reads two images without a token between them as one
            layout += [(int(rng.integers(1, 9)), int(rng.integers(1, 9))), int(rng.integers(1, 12))]
        tokens, spans, grid = laid_out(layout)
        expected, following = reference(tokens, spans, grid)
        got = position_ids(tokens, spans, grid, MERGE)
        assert np.array_equal(got.ids, expected)
        assert got.next_position == following


def test_a_swapped_grid_does_not_match_transformers() -> None:
    tokens, spans, grid = laid_out([3, (2, 5), 4])
    expected, _ = reference(tokens, spans, grid)
    assert not np.array_equal(position_ids(tokens, spans, grid[:, [0, 2, 1]], MERGE).ids, expected)
    assert not np.array_equal(position_ids(tokens, None, None, MERGE).ids, expected)


def test_the_worked_example_of_the_contract() -> None:
    got = position_ids(9, np.array([[2, 6]]), np.array([[1, 4, 4]]), MERGE)
    assert got.ids.tolist() == [
        [0, 1, 2, 2, 2, 2, 4, 5, 6],
        [0, 1, 2, 2, 3, 3, 4, 5, 6],
        [0, 1, 2, 3, 2, 3, 4, 5, 6],
    ]
    assert got.next_position == 7


def test_images_side_by_side_each_start_where_the_other_ends() -> None:
    got = position_ids(13, *laid_out([1, (2, 3), (3, 2)])[1:], MERGE)
    assert got.ids[0].tolist() == [0] + [1] * 6 + [4] * 6
    assert got.next_position == 7


def test_text_alone_counts_up_in_all_three_rows() -> None:
    got = position_ids(5, None, None, MERGE)
    assert got.ids.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert got.next_position == 5
    assert position_ids(0, None, None, MERGE).next_position == 0


@given(st.lists(st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 6), st.integers(1, 6))), min_size=1))
def test_no_position_comes_after_the_next_one(layout: Layout) -> None:
    tokens, spans, grid = laid_out(layout)
    got = position_ids(tokens, spans, grid, MERGE)
    assert got.ids.shape == (3, tokens)
    assert got.ids.min() >= 0
    assert got.ids.max() + 1 == got.next_position


FORGED = {
    "before the ids": ([[-1, 3]], [[1, 4, 4]]),
    "beyond the ids": ([[18, 22]], [[1, 4, 4]]),
    "backwards": ([[6, 2]], [[1, 4, 4]]),
    "empty": ([[2, 2]], [[1, 4, 4]]),
    "overlapping": ([[2, 6], [5, 9]], [[1, 4, 4], [1, 4, 4]]),
    "out of order": ([[10, 14], [2, 6]], [[1, 4, 4], [1, 4, 4]]),
    "one place short": ([[2, 5]], [[1, 4, 4]]),
    "one place more": ([[2, 7]], [[1, 4, 4]]),
    "a grid too few": ([[2, 6], [8, 12]], [[1, 4, 4]]),
    "a grid too many": ([[2, 6]], [[1, 4, 4], [1, 4, 4]]),
    "two frames": ([[2, 10]], [[2, 4, 4]]),
    "no frame": ([[2, 6]], [[0, 4, 4]]),
    "negative sides": ([[2, 6]], [[1, -4, -4]]),
    "an odd side": ([[2, 6]], [[1, 5, 4]]),
    "no rows": ([[2, 6]], [[1, 0, 4]]),
    "flat spans": ([2, 6], [[1, 4, 4]]),
    "narrow grid": ([[2, 6]], [[4, 4]]),
}


@pytest.mark.parametrize("case", FORGED)
def test_spans_that_do_not_fit_their_grids_are_refused_before_any_work(case: str) -> None:
    spans, grid = (np.array(array, np.int64) for array in FORGED[case])
    with pytest.raises(BackendError) as caught:
        position_ids(20, spans, grid, MERGE)
    assert caught.value.code == "internal_inconsistency"


def test_spans_without_grids_are_refused() -> None:
    for spans, grid in ((np.array([[2, 6]]), None), (None, np.array([[1, 4, 4]]))):
        with pytest.raises(BackendError, match="spans and grid"):
            position_ids(20, spans, grid, MERGE)
