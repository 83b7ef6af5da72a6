"""Error-compensated rounding of a matrix for the inputs it will meet."""

import numpy as np
import pytest

from backends.export.calibration.compensate import DAMPING, Feedback, compensate, feedback, hessian
from backends.export.quantize import Rounded, dequantise, quantise
from backends.store import Scheme

SCHEMES = [Scheme(4, 32), Scheme(4, 128), Scheme(4, 64, symmetric=True), Scheme(4, 128, search=False)]
COLUMNS = 256


def drawn(tokens: int, seed: int = 0, columns: int = COLUMNS) -> np.ndarray:
    """Inputs as models have them: a few directions are strong, and channels differ in size."""
    rng = np.random.default_rng(7)
    mixed = rng.normal(size=(columns, columns)) * np.exp(-5 * np.linspace(0, 1, columns))[:, None]
    sizes = np.exp(rng.normal(size=columns))
    tokens_of = np.random.default_rng(seed)
    inputs = tokens_of.normal(size=(tokens, columns)) @ mixed + 0.05 * tokens_of.normal(
        size=(tokens, columns)
    )
    return (inputs * sizes).astype(np.float32)


def weight(rows: int = 96, columns: int = COLUMNS) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.02, (rows, columns)).astype(np.float32)


def moved(matrix: np.ndarray, rounded: Rounded, scheme: Scheme, inputs: np.ndarray) -> float:
    """||X (W - Wq)|| / ||X W||."""
    away = matrix - dequantise(rounded, scheme, matrix.shape[1])
    return float(np.linalg.norm(inputs @ away.T) / np.linalg.norm(inputs @ matrix.T))


def same(one: Rounded, other: Rounded) -> bool:
    zeros = one.zeros is other.zeros is None or np.array_equal(one.zeros, other.zeros)
    return np.array_equal(one.packed, other.packed) and np.array_equal(one.scales, other.scales) and zeros


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_inputs_that_have_nothing_in_common_leave_rounding_as_it_is(scheme: Scheme) -> None:
    identity = feedback(np.eye(COLUMNS, dtype=np.float32))
    assert same(compensate(weight(), identity, scheme), quantise(weight(), scheme))
    inputs = drawn(2000)
    assert not same(compensate(weight(), feedback(inputs.T @ inputs), scheme), quantise(weight(), scheme))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_outputs_move_far_less_on_inputs_that_were_not_seen(scheme: Scheme) -> None:
    inputs, unseen = drawn(2000), drawn(300, seed=3)
    shrunk = hessian(inputs, 1000)
    plain = moved(weight(), quantise(weight(), scheme), scheme, unseen)
    assert moved(weight(), compensate(weight(), feedback(shrunk), scheme), scheme, unseen) < 0.65 * plain
    order = np.random.default_rng(2).permutation(COLUMNS)
    shuffled = feedback(shrunk[order][:, order])
    assert moved(weight(), compensate(weight(), shuffled, scheme), scheme, unseen) > plain


def test_blocks_of_128_come_as_near_as_plain_blocks_of_32() -> None:
    inputs, unseen = drawn(2000), drawn(300, seed=3)
    large, small = Scheme(4, 128), Scheme(4, 32)
    compensated = compensate(weight(), feedback(hessian(inputs, 1000)), large)
    assert moved(weight(), compensated, large, unseen) < moved(
        weight(), quantise(weight(), small), small, unseen
    )
    assert moved(weight(), quantise(weight(), large), large, unseen) > moved(
        weight(), quantise(weight(), small), small, unseen
    )


def test_scales_are_chosen_by_what_each_value_counts() -> None:
    inputs, unseen, scheme = drawn(2000), drawn(300, seed=3), Scheme(4, 128)
    factors = feedback(hessian(inputs, 1000))
    alike = Feedback(factors.shares, np.ones_like(factors.weights))
    best, other = (moved(weight(), compensate(weight(), f, scheme), scheme, unseen) for f in (factors, alike))
    assert best < 0.95 * other


def test_the_factors_are_those_of_the_damped_matrix() -> None:
    inputs = drawn(2000)
    whole = inputs.T @ inputs
    shares, weights = feedback(whole)
    assert np.array_equal(shares, np.triu(shares, 1))
    upper = shares.astype(np.float64) + np.eye(COLUMNS)
    damped = whole + DAMPING * np.trace(whole) / COLUMNS * np.eye(COLUMNS)
    assert np.abs((upper * weights) @ upper.T - damped).max() < 1e-5 * np.abs(damped).max()


@pytest.mark.parametrize("case", ["few tokens", "dead inputs", "nothing at all"])
def test_a_singular_matrix_is_damped(case: str) -> None:
    inputs = drawn(20 if case == "few tokens" else 1000)
    inputs[:, 40 : 90 if case == "dead inputs" else 40] = 0
    if case == "nothing at all":
        inputs[:] = 0
    scheme = Scheme(4, 128)
    rounded = compensate(weight(), feedback(inputs.T @ inputs), scheme)
    back = dequantise(rounded, scheme, COLUMNS)
    assert np.isfinite(back).all()
    if case == "nothing at all":
        assert same(rounded, quantise(weight(), scheme))
    else:
        plain = moved(weight(), quantise(weight(), scheme), scheme, inputs)
        assert moved(weight(), rounded, scheme, inputs) < 0.7 * plain


@pytest.mark.parametrize("columns", [200, 352, 96])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_width_is_packed_as_plain_rounding_packs_it(scheme: Scheme, columns: int) -> None:
    matrix, inputs = weight(columns=columns), drawn(1000, columns=columns)
    rounded, plain = compensate(matrix, feedback(inputs.T @ inputs), scheme), quantise(matrix, scheme)
    assert (rounded.packed.shape, rounded.scales.shape) == (plain.packed.shape, plain.scales.shape)
    assert (rounded.packed.dtype, rounded.scales.dtype) == (plain.packed.dtype, plain.scales.dtype)
    assert (rounded.zeros is None) == scheme.symmetric
    assert moved(matrix, rounded, scheme, inputs) < moved(matrix, plain, scheme, inputs)


def test_chance_correlations_are_shrunk_and_real_ones_kept() -> None:
    def off(whole: np.ndarray) -> float:
        return float(np.linalg.norm(whole - np.diag(whole.diagonal())))

    chance = np.random.default_rng(4).normal(size=(1000, COLUMNS)).astype(np.float32)
    real = drawn(1000)
    assert off(hessian(chance, 500)) < 0.3 * off(chance.T @ chance)
    assert off(hessian(real, 500)) > 0.9 * off(real.T @ real)
    assert np.allclose(hessian(chance, 500).diagonal(), (chance**2).sum(0), rtol=1e-4)


def test_inputs_without_a_pattern_gain_nothing_and_lose_little() -> None:
    rng = np.random.default_rng(5)
    inputs, unseen = (rng.normal(size=(tokens, COLUMNS)).astype(np.float32) for tokens in (500, 500))
    scheme = Scheme(4, 128)
    plain = moved(weight(), quantise(weight(), scheme), scheme, unseen)
    shrunk = compensate(weight(), feedback(hessian(inputs, 250)), scheme)
    trusting = compensate(weight(), feedback(inputs.T @ inputs), scheme)
    assert moved(weight(), shrunk, scheme, unseen) < 1.03 * plain
    assert moved(weight(), trusting, scheme, unseen) > 1.1 * plain
