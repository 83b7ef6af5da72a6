"""A head in two parts: its best scores are those of all its bits, the others those of the upper four."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from backends import Prompt, RequestError, Runtime  # noqa: E402
from backends.export import Recipe  # noqa: E402
from backends.export.body import embedding_table  # noqa: E402
from backends.export.head import rounding  # noqa: E402
from backends.export.quantize import dequantise, quantise, quantise_rest, rest_of  # noqa: E402
from backends.onnx.decoder import Decoder  # noqa: E402
from backends.onnx.embeddings import Embeddings  # noqa: E402
from backends.qwen3vl import Config  # noqa: E402
from backends.store import Scheme, Weights  # noqa: E402
from router.bench.rates import weight_bytes  # noqa: E402
from tests.export.test_decoder import expected, got, round_in_place  # noqa: E402
from tests.exports import exported, model  # noqa: E402

IDS = np.random.default_rng(0).integers(0, 1000, 37)
BEST = 16
# in float32, where one token's product and several tokens' agree
SHORT = Recipe(accuracy_level=0, shortlist=BEST)
SIX = Recipe(recipe="fast", accuracy_level=0, shortlist=BEST)


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[Recipe, Path]:
    return {recipe: exported(tmp_path_factory.mktemp("head"), recipe, model())[1] for recipe in (SHORT, SIX)}


def with_head(recipe: Recipe, head: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Scores [tokens, vocab] of transformers with the export's weights, but for the head."""
    built = model()
    rows = built.lm_head.weight.detach().numpy().copy()
    round_in_place(built, recipe)
    with torch.no_grad():
        built.lm_head.weight.copy_(torch.from_numpy(head(rows)))
    return expected(built, Prompt(IDS))


@pytest.mark.parametrize("recipe", [SHORT, SIX], ids=str)
def test_the_best_are_scored_by_all_bits_and_the_others_as_they_were_found(
    outs: dict[Recipe, Path], recipe: Recipe
) -> None:
    upper = recipe.upper_head(64)
    whole = with_head(recipe, rounding(recipe, 1024, 64))
    rough = with_head(recipe, lambda rows: dequantise(quantise(rows, upper), upper, 64))
    for all_bits, four, both in zip(whole, rough, got(outs[recipe], model(), Prompt(IDS)), strict=True):
        best = np.argsort(four)[-BEST:]
        others = np.setdiff1d(np.arange(len(four)), best)
        assert np.abs(both[best] - all_bits[best]).max() <= 1e-4
        assert np.abs(both[others] - four[others]).max() <= 1e-4
        # what would be seen if the two were taken for one another
        assert np.abs(four[best] - all_bits[best]).max() > 1e-2
        assert np.abs(all_bits[others] - four[others]).max() > 1e-2


@pytest.mark.parametrize(("bits", "times"), [(8, 1), (6, 4)])
@pytest.mark.parametrize("columns", [256, 200])
@pytest.mark.parametrize("symmetric", [False, True])
def test_two_parts_are_nearly_as_near_as_codes_of_all_bits(
    bits: int, times: int, columns: int, symmetric: bool
) -> None:
    recipe = Recipe(head_bits=bits, symmetric=symmetric)  # type: ignore[arg-type]
    rows = np.random.default_rng(0).standard_normal((512, columns)).astype(np.float32)
    upper = recipe.upper_head(columns)
    eight = replace(upper, bits=8, lean=0.0)
    whole, alone = (
        np.linalg.norm(dequantise(quantise(rows, scheme), scheme, columns) - rows)
        for scheme in (eight, upper)
    )
    both = np.linalg.norm(rounding(recipe, 151936, columns)(rows) - rows)
    assert both <= 1.1 * times * whole
    assert alone > 3 * both


@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_rest_reaches_to_the_extremes(bits: int, symmetric: bool, sign: int) -> None:
    recipe = Recipe(head_bits=bits, symmetric=symmetric)  # type: ignore[arg-type]
    rows = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    rows[:, 7] = sign * np.linspace(1, 9, 64)  # from within to far outside of the others
    rows[:, 9] = -rows[:, 7]
    leaning = recipe.upper_head(256)
    rest = rest_of(leaning, recipe.rest_bits)

    def furthest(upper: Scheme) -> float:
        """In steps of the rest."""
        rounded = quantise(rows, upper)
        left = rows - dequantise(rounded, upper, 256)
        left -= dequantise(quantise_rest(rows, rounded, upper, rest), rest, 256)
        steps = rounded.scales[..., None] / 2**recipe.rest_bits
        return float(np.abs(left.reshape(64, 2, 128) / steps).max())

    assert furthest(leaning) <= 0.5001
    assert furthest(replace(leaning, lean=0.0)) > 0.9


def test_each_row_of_a_batch_has_its_own_best(outs: dict[Recipe, Path]) -> None:
    decoder = Decoder(outs[SHORT], Runtime(device="cpu", threads=1))
    store = decoder.store(3, 64)
    rows = np.random.default_rng(1).standard_normal((3, 1, decoder.hidden)).astype(np.float32)

    def step(chosen: slice) -> np.ndarray:
        given = rows[chosen]
        binding = decoder.bind([array[chosen] for array in store.arrays])
        return decoder.step(binding, given, np.zeros((3, len(given), 1), np.int64), np.zeros(len(given), int))

    together = step(slice(0, 3))
    for row in range(3):
        assert np.abs(together[row] - step(slice(row, row + 1))[0]).max() <= 1e-4
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_the_upper_bits_are_what_a_token_reads(tmp_path: Path, outs: dict[Recipe, Path]) -> None:
    whole = exported(tmp_path, replace(SHORT, shortlist=0), model())[1]
    for graph in ("decoder.onnx", "text.onnx"):
        saved = weight_bytes(whole / graph) - weight_bytes(outs[SHORT] / graph)
        assert saved == pytest.approx(1024 * 64 / 2, rel=0.1)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("recipe", [SHORT, SIX], ids=str)
def test_a_table_in_two_parts_embeds_as_the_graph_does(tmp_path: Path, recipe: Recipe, tie: bool) -> None:
    built = model(tie=tie)
    source, out, _ = exported(tmp_path, recipe, built)
    notes = onnx.load(out / "decoder.onnx", load_external_data=False).metadata_props
    table = Embeddings.read(out, next(entry.value for entry in notes if entry.key == "embeddings"))
    rows = built.model.language_model.embed_tokens.weight.detach().numpy()
    rounded = embedding_table(Weights(source), Config.read(source).text, recipe)[1](rows[:100])
    assert np.abs(table(np.arange(100)) - rounded).max() <= 1e-6
    assert np.abs(rounded - rows[:100]).max() > 1e-4


@pytest.mark.parametrize(("recipe", "bits"), [(SHORT, 8), (SIX, 6)], ids=str)
def test_the_errors_of_both_are_told(tmp_path: Path, recipe: Recipe, bits: int) -> None:
    _, _, errors = exported(tmp_path, recipe, model())
    heads = {matrix.name: matrix for matrix in errors if "lm_head" in matrix.name}
    assert {name: matrix.bits for name, matrix in heads.items()} == {
        "lm_head.weight": bits,
        "shortlist.lm_head.weight": 4,
    }
    assert 3 * heads["lm_head.weight"].error < heads["shortlist.lm_head.weight"].error < 0.12


@pytest.mark.parametrize(
    ("recipe", "vocab", "best"),
    [
        (Recipe(), 151936, 256),
        (Recipe(), 1024, 0),  # so small a head is read at once
        (Recipe(shortlist=64), 1024, 64),
        (Recipe(shortlist=64), 64, 0),
        (Recipe(shortlist=0), 151936, 0),
        (Recipe(recipe="fast"), 151936, 256),
        (Recipe(recipe="fast", head_bits=4), 151936, 0),
        (Recipe(head_bits=6), 1024, 256),
        (Recipe(precision="int8", head_bits=6), 1024, 256),
        (Recipe(precision="int8"), 151936, 0),
        (Recipe(precision="int8", shortlist=100), 151936, 100),
        (Recipe(precision="fp32"), 151936, 0),
        (Recipe(precision="fp32", head_bits=6), 151936, 0),
    ],
    ids=str,
)
def test_which_heads_are_searched(recipe: Recipe, vocab: int, best: int) -> None:
    assert recipe.best_scores(vocab) == best


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"shortlist": -1}, "from 0 to 8192, got -1"),
        ({"shortlist": 9999}, "from 0 to 8192, got 9999"),
        ({"shortlist": 9, "head_bits": 4}, "is for a head of 6 or 8 bits"),
        ({"shortlist": 9, "precision": "fp32"}, "is for a head of 6 or 8 bits"),
        ({"shortlist": 0, "head_bits": 6}, "a head of 6 bits is read in two parts"),
    ],
)
def test_a_shortlist_that_cannot_be_is_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        Recipe(**fields)  # type: ignore[arg-type]
