"""The onnx backend against transformers, for every layout and every grid."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from backends import Prompt  # noqa: E402
from backends.onnx import backend as session_module  # noqa: E402
from backends.onnx.backend import (  # noqa: E402
    OnnxBackend,
)
from backends.onnx.features import FeatureCache, Features  # noqa: E402
from tests import tiny  # noqa: E402
from tests.exports import Models, fp32, greedy, scores, with_its_tower  # noqa: E402
from tests.torch.test_backend import LAYOUTS, image, prompt_of, reference, say  # noqa: E402

MIXED = (
    say(
        *(image(width * 16, height * 16, seed) for seed, (height, width) in enumerate([(16, 16), (18, 24)])),
        "Look at these, and at this.",
        image(60 * 16, 2 * 16, 9),
        "What changed?",
    ),
)


@pytest.fixture(scope="module", name="models")
def models_fixture() -> Models:
    return fp32()


@pytest.fixture(scope="module", name="loaded")
def loaded_fixture() -> OnnxBackend:
    return with_its_tower()


@pytest.mark.parametrize("layout", [*LAYOUTS, "mixed sizes"])
def test_greedy_tokens_and_scores_equal_transformers(models: Models, layout: str) -> None:
    messages = MIXED if layout == "mixed sizes" else LAYOUTS[layout]
    tokens, logits = reference(models.folder, messages)
    prompt = prompt_of(models.folder, messages)
    with closing(models.backend.open(1024)) as session:
        assert np.abs(scores(session, prompt, tokens) - logits.numpy()).max() <= 1e-4
    with closing(models.backend.open(1024)) as session:
        assert greedy(session, prompt, len(tokens)) == tokens
    assert len(set(tokens)) >= 3


def flat_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.qwen3vl import position_ids

    def flat(tokens: int, *_: object) -> object:
        return position_ids(tokens, None, None, 2)

    monkeypatch.setattr(session_module, "position_ids", flat)


def no_deepstack(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = FeatureCache.encode

    def blind(self: FeatureCache, *args: Any) -> Features:
        features = encode(self, *args)
        return Features(features.main, tuple(np.zeros_like(added) for added in features.deepstack))

    monkeypatch.setattr(FeatureCache, "encode", blind)


def shifted_features(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = FeatureCache.encode

    def rolled(self: FeatureCache, *args: Any) -> Features:
        features = encode(self, *args)
        return Features(np.roll(features.main, 1, 0), features.deepstack)

    monkeypatch.setattr(FeatureCache, "encode", rolled)


@pytest.mark.parametrize("damage", [flat_positions, no_deepstack, shifted_features])
def test_a_wrong_position_or_feature_breaks_the_equality(
    models: Models, monkeypatch: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    tokens, logits = reference(models.folder, LAYOUTS["one image"])
    damage(monkeypatch)
    with closing(models.backend.open(1024)) as session:
        ours = scores(session, prompt_of(models.folder, LAYOUTS["one image"]), tokens)
    assert np.abs(ours - logits.numpy()).max() > 1e-2


GRIDS = [(16, 16), (24, 24), (18, 24), (2, 60), (64, 96)]


def imaged(grids: list[tuple[int, int]]) -> Prompt:
    """Images of noise, each between two pieces of text."""
    ids, spans = [5, 6, 7], []
    for index, (height, width) in enumerate(grids):
        ids += [1019]
        spans.append((len(ids), len(ids) + height * width // 4))
        ids += [1022] * (height * width // 4) + [1020, 300 + index, 301]
    rng = np.random.default_rng(len(grids))
    patches = rng.uniform(-1, 1, (sum(h * w for h, w in grids), 1536)).astype(np.float32)
    return Prompt(np.array(ids), patches, np.array([(1, *grid) for grid in grids]), np.array(spans))


def whole_model(prompt: Prompt, tokens: list[int]) -> np.ndarray:
    """transformers' scores [tokens, vocab], with the positions that it finds itself."""
    ids = torch.from_numpy(np.concatenate([prompt.ids, tokens[:-1]]))[None]
    with torch.inference_mode():
        logits = tiny.model()(
            input_ids=ids,
            pixel_values=torch.from_numpy(prompt.patches),
            image_grid_thw=torch.from_numpy(prompt.grid),
            mm_token_type_ids=(ids == 1022).int(),
        ).logits
    return logits[0, len(prompt.ids) - 1 :].numpy()


@pytest.mark.parametrize("grids", [*([grid] for grid in GRIDS), GRIDS[:4], GRIDS[::-1]], ids=str)
def test_every_grid_and_mixes_of_them_equal_transformers(
    models: Models, loaded: OnnxBackend, grids: list[tuple[int, int]]
) -> None:
    prompt, tokens = imaged(grids), [310, 311, 312]
    with closing(loaded.open(len(prompt.ids) + 3)) as session:
        ours = scores(session, prompt, tokens)
    assert np.abs(ours - whole_model(prompt, tokens)).max() <= 1e-4
