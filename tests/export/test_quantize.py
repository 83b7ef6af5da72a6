"""Rounded matrices: how far they move, and that onnxruntime reads them as we do."""

from pathlib import Path

import numpy as np
import pytest

from backends.export.graph import FLOAT, DataFile, Graph
from backends.export.matrices import Matrices, Stored
from backends.export.quantize import Rounded, dequantise, quantise
from backends.store import Recipe, Scheme

ort = pytest.importorskip("onnxruntime")

GAUSSIAN = np.random.default_rng(0).normal(0, 0.02, (96, 2048)).astype(np.float32)
HEAVY = np.random.default_rng(1).standard_t(4, (96, 2048)).astype(np.float32)


def error(matrix: np.ndarray, scheme: Scheme) -> float:
    back = dequantise(quantise(matrix, scheme), scheme, matrix.shape[1])
    return float(np.linalg.norm(back - matrix) / np.linalg.norm(matrix))


@pytest.mark.parametrize(
    ("scheme", "gaussian", "heavy"),
    [
        (Scheme(4, 32), 0.078, 0.096),
        (Scheme(4, 32, symmetric=True), 0.083, 0.114),
        (Scheme(4, 128), 0.096, 0.142),
        (Scheme(8, 128, search=False), 0.006, 0.009),
    ],
)
def test_rounding_moves_a_matrix_no_further_than_expected(
    scheme: Scheme, gaussian: float, heavy: float
) -> None:
    assert error(GAUSSIAN, scheme) <= gaussian
    assert error(HEAVY, scheme) <= heavy


def test_the_faithful_recipe_beats_q4_0_and_plain_rounding_does_not() -> None:
    recipe = Recipe()
    body, head = recipe.body(0, 2048), recipe.head(2048)
    assert body is not None
    assert head is not None
    assert error(GAUSSIAN, body) <= 0.086
    assert error(GAUSSIAN, head) <= 0.018
    assert error(GAUSSIAN, Scheme(4, 128, symmetric=True, search=False)) > 0.086
    assert error(GAUSSIAN, Scheme(4, 32)) > 0.018


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("matrix", [GAUSSIAN, HEAVY], ids=["gaussian", "heavy"])
def test_a_search_is_never_worse_than_the_extremes(matrix: np.ndarray, symmetric: bool) -> None:
    searched, plain = (Scheme(4, 64, symmetric, search) for search in (True, False))
    assert error(matrix, searched) < error(matrix, plain)


def q4_0(matrix: np.ndarray) -> np.ndarray:
    """llama.cpp's Q4_0, but for its scales, which it rounds to 16 bits: the extreme of 32 is at code 0."""
    blocks = matrix.reshape(-1, 32)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = extreme / -8
    codes = np.minimum(np.floor(blocks / np.where(scale == 0, 1, scale) + 8.5), 15)
    return ((codes - 8) * scale).reshape(matrix.shape)


DISTRIBUTIONS = {
    "gaussian": lambda rng: rng.normal(size=(64, 512)),
    "heavy": lambda rng: rng.standard_t(2, (64, 512)),
    "uniform": lambda rng: rng.uniform(-1, 1, (64, 512)),
    "positive": lambda rng: rng.exponential(size=(64, 512)),
    "few values": lambda rng: rng.integers(-2, 3, (64, 512)),
    "one outlier a block": lambda rng: rng.normal(size=(64, 512)) + 30 * (np.arange(512) % 32 == 7),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_block_is_rounded_worse_than_q4_0_does(name: str) -> None:
    matrix = DISTRIBUTIONS[name](np.random.default_rng(5)).astype(np.float32)
    scheme = Recipe().body(0, 512)
    assert scheme is not None
    ours = dequantise(quantise(matrix, scheme), scheme, 512)

    def lost(other: np.ndarray) -> np.ndarray:
        return ((other - matrix) ** 2).reshape(-1, 32).sum(1)

    slack = 1e-5 * (matrix**2).reshape(-1, 32).sum(1)
    assert (lost(ours) <= lost(q4_0(matrix)) + slack).all()
    coarse = Scheme(4, 128, symmetric=True, search=False)
    worse = dequantise(quantise(matrix, coarse), coarse, 512)
    assert name == "few values" or (lost(worse) > lost(q4_0(matrix)) + slack).any()


def test_blocks_of_zeros_and_single_values_come_back_exactly() -> None:
    matrix = np.zeros((3, 64), np.float32)
    matrix[1, 5], matrix[2, :] = -3.0, 0.25
    for symmetric in (True, False):
        scheme = Scheme(4, 32, symmetric)
        assert np.allclose(dequantise(quantise(matrix, scheme), scheme, 64), matrix, atol=1e-6)


def multiplied(
    folder: Path, x: np.ndarray, rounded: Rounded, scheme: Scheme, rows: int, level: int
) -> np.ndarray:
    """What onnxruntime's own MatMulNBits makes of ``x`` and the rounded matrix."""
    with DataFile(folder / "weights.data") as data:
        data.write("matrix", rounded.packed)
        data.write("matrix.scales", rounded.scales)
        if rounded.zeros is not None:
            data.write("matrix.zeros", rounded.zeros)
        graph = Graph("product", data)
        stored = Stored("matrix", rows, x.shape[1], scheme)
        matrices = Matrices(None, data, level)  # type: ignore[arg-type]
        graph.output(
            matrices.multiply(graph, graph.input("x", FLOAT, ["rows", x.shape[1]]), stored, "y"),
            FLOAT,
            ["rows", rows],
        )
        graph.save(folder / "product.onnx")
    session = ort.InferenceSession(folder / "product.onnx", providers=["CPUExecutionProvider"])
    product: np.ndarray = session.run(None, {"x": x})[0]
    return product


CASES = [
    Scheme(bits, block, symmetric, search=bits == 4)
    for bits in (4, 8)
    for block in (16, 32, 128, 256)
    for symmetric in (True, False)
]


@pytest.mark.parametrize("columns", [352, 256, 200])
@pytest.mark.parametrize("scheme", CASES, ids=str)
def test_onnxruntime_multiplies_by_what_we_dequantise(tmp_path: Path, scheme: Scheme, columns: int) -> None:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(48, columns)).astype(np.float32)
    x = rng.normal(size=(5, columns)).astype(np.float32)
    rounded = quantise(matrix, scheme)
    expected = x @ dequantise(rounded, scheme, columns).T
    assert np.abs(multiplied(tmp_path, x, rounded, scheme, 48, 0) - expected).max() <= 1e-4
    off = Rounded(rounded.packed, np.roll(rounded.scales, 1, 0), rounded.zeros)
    assert np.abs(x @ dequantise(off, scheme, columns).T - expected).max() > 1e-2


@pytest.mark.parametrize("columns", [352, 256, 200])
@pytest.mark.parametrize("scheme", CASES, ids=str)
def test_the_quick_kernel_reads_the_same_matrix(tmp_path: Path, scheme: Scheme, columns: int) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(48, columns)).astype(np.float32)
    x = rng.normal(size=(5, columns)).astype(np.float32)
    rounded = quantise(matrix, scheme)
    expected = x @ dequantise(rounded, scheme, columns).T
    got = multiplied(tmp_path, x, rounded, scheme, 48, 4)
    # it rounds x to 8 bits, block by block
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.012
