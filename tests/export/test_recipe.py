"""Recipes: what they choose, and what they refuse."""

from typing import Any

import pytest

from backends.base import RequestError
from backends.store import Recipe, Scheme, fitting


@pytest.mark.parametrize(
    ("recipe", "body", "head"),
    [
        (Recipe(), Scheme(4, 32), Scheme(8, 128, search=False)),
        (Recipe(recipe="fast"), Scheme(4, 128, True), Scheme(4, 32)),
        (Recipe(recipe="fast", symmetric=False), Scheme(4, 128), Scheme(4, 32)),
        (Recipe(recipe="fast", head_bits=8), Scheme(4, 128, True), Scheme(8, 128, search=False)),
        (Recipe(calibrate=True), Scheme(4, 128, True), Scheme(8, 128, search=False)),
        (Recipe(symmetric=True), Scheme(4, 32, True), Scheme(8, 128, True, search=False)),
        (Recipe(block_size=64, search=False), Scheme(4, 64, search=False), Scheme(8, 64, search=False)),
        (Recipe(precision="int8"), Scheme(8, 128, search=False), Scheme(8, 128, search=False)),
        (Recipe(precision="fp32"), None, None),
    ],
    ids=str,
)
def test_a_recipe_says_how_each_matrix_is_rounded(recipe: Recipe, body: Scheme, head: Scheme) -> None:
    assert recipe.body(0, 2048) == body
    assert recipe.head(2048) == head


@pytest.mark.parametrize(
    ("recipe", "symmetric"),
    [
        (Recipe(), False),
        (Recipe(recipe="fast"), True),
        (Recipe(recipe="fast", symmetric=False), False),
        (Recipe(calibrate=True), True),
        (Recipe(calibrate=True, symmetric=False), False),
        (Recipe(symmetric=True), True),
    ],
)
def test_the_upper_bits_of_a_head_have_zero_points_where_the_layers_do(
    recipe: Recipe, symmetric: bool
) -> None:
    assert recipe.upper_head(2048).symmetric == symmetric


def test_single_layers_may_keep_8_bits() -> None:
    recipe = Recipe(int8_layers=frozenset({2}))
    assert [scheme.bits for scheme in map(recipe.body, range(4), [2048] * 4) if scheme] == [4, 4, 8, 4]


@pytest.mark.parametrize(
    ("block", "columns", "fits"), [(128, 192, 64), (128, 352, 32), (32, 2048, 32), (32, 200, 32)]
)
def test_blocks_divide_the_rows_where_they_can(block: int, columns: int, fits: int) -> None:
    assert fitting(block, columns) == fits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("precision", "int3"),
        ("recipe", "quick"),
        ("block_size", 48),
        ("accuracy_level", 2),
        ("head_bits", 5),
        ("vision_precision", "int4"),
        ("precision", None),
    ],
)
def test_what_no_kernel_reads_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"{field} must be one of .*, got {value}") as raised:
        Recipe(**{field: value})
    assert raised.value.param == field
