"""An export with matrices of 7 bits for reading long prompts."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from safetensors.numpy import save_file  # noqa: E402

from backends import BackendError, Prompt, Runtime  # noqa: E402
from backends.export import Recipe, export  # noqa: E402
from backends.export.columns import Columns  # noqa: E402
from backends.export.graph import FLOAT, DataFile, Graph  # noqa: E402
from backends.export.sizes import estimate  # noqa: E402
from backends.onnx import backend as session_module  # noqa: E402
from backends.onnx.backend import OnnxBackend  # noqa: E402
from backends.onnx.prefill import LEAST  # noqa: E402
from backends.prefix_cache import TAIL  # noqa: E402
from backends.store import Weights, recipe_fields  # noqa: E402
from tests.exports import Models, fp32, with_its_tower  # noqa: E402
from tests.onnx.test_backend import flat_positions, imaged, no_deepstack  # noqa: E402

RECIPE = Recipe(precision="fp32", prefill_precision="int8")
RUNTIME = Runtime(device="cpu", threads=1, kept_bytes=0)
IMAGE = [(24, 24)]  # 144 places


@pytest.fixture(scope="module", name="models")
def models_fixture() -> Models:
    return fp32()


@pytest.fixture(scope="module", name="exported")
def exported_fixture(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prefill")
    export(models.folder, out, RECIPE)
    return out


@pytest.fixture(scope="module", name="filling")
def filling_fixture(exported: Path) -> OnnxBackend:
    """float32, but long prompts are read by 7 bits."""
    return OnnxBackend.load(exported, RUNTIME)


def read(backend: OnnxBackend, prompt: Prompt) -> tuple[np.ndarray, list[np.ndarray]]:
    """The scores, and the keys and values [kv_heads, tokens, head_dim] of all but the last tokens."""
    with closing(backend.open(1024)) as session:
        logits = session.prefill(prompt).logits
        assert session.cache is not None
        assert session.cache.store is not None
        count = len(prompt.ids) - TAIL
        return logits, [array[0, :, :count].copy() for array in session.cache.store.arrays]


def apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """How far the farthest of them is from the other's, relative to that."""
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(ours, theirs, strict=True))


def test_what_it_keeps_is_what_float32_keeps_but_for_rounding(filling: OnnxBackend) -> None:
    (scores, kept), (exact, whole) = (read(backend, imaged(IMAGE)) for backend in (filling, with_its_tower()))
    assert 1e-4 < apart(kept, whole) < 0.05
    assert np.linalg.norm(scores - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("damage", [flat_positions, no_deepstack])
def test_a_wrong_position_or_feature_shows(
    filling: OnnxBackend, monkeypatch: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    _, whole = read(with_its_tower(), imaged(IMAGE))
    damage(monkeypatch)
    _, kept = read(filling, imaged(IMAGE))
    assert apart(kept, whole) > 0.1


def test_a_short_prompt_is_read_by_the_decoder_alone(filling: OnnxBackend) -> None:
    for count in (1, TAIL, LEAST + TAIL - 1):
        prompt = Prompt(np.arange(300, 300 + count))
        assert np.array_equal(read(filling, prompt)[0], read(with_its_tower(), prompt)[0])
    prompt = Prompt(np.arange(300, 300 + LEAST + TAIL))
    assert not np.array_equal(read(filling, prompt)[0], read(with_its_tower(), prompt)[0])


def test_chunks_change_nothing(filling: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(filling, imaged(IMAGE))[1]
    monkeypatch.setattr(session_module, "CHUNK", 50)
    assert apart(read(filling, imaged(IMAGE))[1], whole) < 1e-5


def test_a_token_far_larger_than_the_others_costs_only_itself(
    filling: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, loud = filling.embeddings, 20
    prompt = Prompt(np.arange(300, 400))

    def louder(ids: np.ndarray) -> np.ndarray:
        rows = look_up(ids)
        # one channel, so that the norm before the matrix does not take it back
        rows[ids == prompt.ids[loud], 0] *= 1e4
        return rows

    _, quiet = read(filling, prompt)
    monkeypatch.setattr(filling, "embeddings", louder)
    _, kept = read(filling, prompt)
    others = np.arange(len(quiet[0][0])) != loud
    # of the first layer: in the later ones the others have attended to it
    assert np.array_equal(kept[0][:, others], quiet[0][:, others])
    assert not np.array_equal(kept[0][:, ~others], quiet[0][:, ~others])


def test_no_sum_is_cut_at_16_bits(tmp_path: Path) -> None:
    weights = np.full((16, 512), -64, np.float32)
    weights[0, 0] = 63  # codes reach from -64 to 63
    save_file({"matrix": weights}, tmp_path / "model.safetensors")
    with DataFile(tmp_path / "ones.data") as data:
        columns, graph = Columns(Weights(tmp_path), data), Graph("ones", data)
        by = columns.store("matrix", ["matrix"], None)
        graph.output(
            columns.multiply(graph, graph.input("x", FLOAT, [1, 1, 512]), by, "y"), FLOAT, [1, 1, 16]
        )
    graph.save(tmp_path / "ones.onnx")
    session = ort.InferenceSession(tmp_path / "ones.onnx", providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": np.full((1, 1, 512), 127, np.float32)})[0][0, 0]
    assert y[1:] == pytest.approx(127 * -64 * 512, rel=1e-5)


def test_the_same_prompt_scores_the_same_when_its_cache_was_kept(exported: Path) -> None:
    backend = OnnxBackend.load(exported, replace(RUNTIME, kept_bytes=1 << 24))
    prompt = Prompt(np.arange(300, 450))
    first, second = (read(backend, prompt)[0] for _ in range(2))
    assert np.array_equal(first, second)
    with closing(backend.open(1024)) as session:
        assert session.prefill(prompt).cached_tokens == len(prompt.ids) - TAIL


def test_it_stops_in_the_middle(filling: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    session = filling.open(1024)
    assert filling.filler is not None
    fill = filling.filler.fill

    def closed(*given: Any) -> None:
        session.close()
        fill(*given)

    monkeypatch.setattr(filling.filler, "fill", closed)
    with pytest.raises(BackendError) as caught:
        session.prefill(imaged(IMAGE))
    assert caught.value.code == "cancelled"


def test_its_size_is_foreseen(models: Models, exported: Path) -> None:
    written = sum(file.stat().st_size for file in exported.iterdir())
    without = replace(RECIPE, prefill_precision=None)
    more = estimate(models.folder, RECIPE) - estimate(models.folder, without)
    # in a model as small as this one half of the file is the space before tensors that start on pages
    assert (exported / "prefill.data").stat().st_size < 2 * more
    assert written <= estimate(models.folder, RECIPE)


def test_a_recipe_without_it_is_written_as_before() -> None:
    assert "prefill_precision" not in recipe_fields(Recipe())
    assert recipe_fields(RECIPE)["prefill_precision"] == "int8"
