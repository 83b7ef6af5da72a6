"""A head that is searched at 4 bits: its best scores are those of 8 bits, all others those of the search."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from backends import Prompt, RequestError, Runtime  # noqa: E402
from backends.export import Recipe  # noqa: E402
from backends.export.traffic import weight_bytes  # noqa: E402
from backends.ort.decoder import Decoder  # noqa: E402
from tests.exports import exported, load, model, scores  # noqa: E402

IDS = np.random.default_rng(0).integers(0, 1000, 37)
TOKENS = [300, 301, 302, 303]
BEST = 16
# the same layers and embeddings in all three, as the model is untied; in float32, where one token's product
# and several tokens' agree
EIGHT = Recipe(block_size=32, accuracy_level=0)
FOUR = Recipe(block_size=32, accuracy_level=0, head_bits=4)
SHORT = Recipe(block_size=32, accuracy_level=0, shortlist=BEST)


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[Recipe, Path]:
    return {
        recipe: exported(tmp_path_factory.mktemp("head"), recipe, model())[1]
        for recipe in (EIGHT, FOUR, SHORT)
    }


def answered(out: Path) -> np.ndarray:
    with closing(load(out, model()).open(128)) as session:
        return scores(session, Prompt(IDS), TOKENS)


def test_the_best_are_scored_at_8_bits_and_the_others_as_they_were_found(outs: dict[Recipe, Path]) -> None:
    eight, four, short = (answered(outs[recipe]) for recipe in (EIGHT, FOUR, SHORT))
    for whole, rough, both in zip(eight, four, short, strict=True):
        best = np.argsort(rough)[-BEST:]
        others = np.setdiff1d(np.arange(len(rough)), best)
        assert np.abs(both[best] - whole[best]).max() <= 1e-4
        assert np.abs(both[others] - rough[others]).max() <= 1e-4
        # what would be seen if the two were taken for one another
        assert np.abs(rough[best] - whole[best]).max() > 1e-2
        assert np.abs(whole[others] - rough[others]).max() > 1e-2


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


def test_the_search_is_what_a_token_reads(outs: dict[Recipe, Path]) -> None:
    eight, four, short = (weight_bytes(outs[recipe] / "decoder.onnx") for recipe in (EIGHT, FOUR, SHORT))
    assert short == four < eight
    for graph in ("decoder.onnx", "text.onnx"):
        names = [node.op_type for node in onnx.load(outs[SHORT] / graph, load_external_data=False).graph.node]
        assert "TopK" in names


def test_the_errors_of_both_are_told(tmp_path: Path) -> None:
    _, _, errors = exported(tmp_path, SHORT, model())
    found = {matrix.name: matrix for matrix in errors if "lm_head" in matrix.name}
    assert [(name, matrix.bits) for name, matrix in found.items()] == [
        ("lm_head.weight", 8),
        ("shortlist.lm_head.weight", 4),
    ]
    assert 10 * found["lm_head.weight"].error < found["shortlist.lm_head.weight"].error < 0.1


@pytest.mark.parametrize(
    ("recipe", "vocab", "best"),
    [
        (Recipe(), 151936, 256),
        (Recipe(), 1024, 0),  # so small a head is read at once
        (Recipe(shortlist=64), 1024, 64),
        (Recipe(shortlist=64), 64, 0),
        (Recipe(shortlist=0), 151936, 0),
        (Recipe(recipe="fast"), 151936, 0),  # its head has 4 bits
        (Recipe(recipe="fast", head_bits=8), 151936, 256),
        (Recipe(precision="int8"), 151936, 0),
        (Recipe(precision="int8", shortlist=100), 151936, 100),
        (Recipe(precision="fp32"), 151936, 0),
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
        ({"shortlist": 9, "recipe": "fast"}, "is for an 8-bit head"),
        ({"shortlist": 9, "head_bits": 4}, "is for an 8-bit head"),
        ({"shortlist": 9, "precision": "fp32"}, "is for an 8-bit head"),
    ],
)
def test_a_shortlist_that_cannot_be_is_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(RequestError, match=why) as raised:
        Recipe(**fields)  # type: ignore[arg-type]
    assert raised.value.param == "shortlist"
