"""Exports of every precision and shape against transformers holding the very same rounded weights."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
onnxruntime = pytest.importorskip("onnxruntime")

from backends import Prompt, RequestError  # noqa: E402
from backends.base import BackendError  # noqa: E402
from backends.export import Recipe, export  # noqa: E402
from backends.export.quantize import dequantise, quantise  # noqa: E402
from backends.onnx.embeddings import Embeddings  # noqa: E402
from backends.qwen3vl import position_ids  # noqa: E402
from backends.store import Scheme  # noqa: E402
from tests import tiny  # noqa: E402
from tests.exports import SHAPES, exported, load, model  # noqa: E402
from tests.torch.test_backend import LAYOUTS, prompt_of  # noqa: E402

TOKENS = (300, 301, 302)


def moved(weight: "torch.Tensor", scheme: Scheme | None) -> "torch.Tensor":
    matrix = weight.detach().numpy()
    if scheme is None:
        return weight
    return torch.from_numpy(dequantise(quantise(matrix, scheme), scheme, matrix.shape[1]))


def round_in_place(built: "torch.nn.Module", recipe: Recipe) -> None:
    """Give transformers the weights that the export holds."""
    text = built.model.language_model
    tied = built.lm_head.weight is text.embed_tokens.weight
    with torch.no_grad():
        for index, layer in enumerate(text.layers):
            for weight in layer.parameters():
                if weight.ndim == 2:
                    weight.copy_(moved(weight, recipe.body(index, weight.shape[1])))
        width = built.lm_head.weight.shape[1]
        built.lm_head.weight.copy_(moved(built.lm_head.weight, recipe.head(width)))
        if not tied:
            text.embed_tokens.weight.copy_(moved(text.embed_tokens.weight, recipe.embeddings(width)))


def expected(built: "torch.nn.Module", prompt: Prompt) -> np.ndarray:
    """Scores [tokens, vocab] after the prompt and after each of TOKENS but the last."""
    ids = torch.from_numpy(np.concatenate([prompt.ids, TOKENS[:-1]]))[None]
    places, _ = position_ids(ids.shape[1], prompt.spans, prompt.grid, 2)
    given = (
        {}
        if prompt.patches is None
        else {
            "pixel_values": torch.from_numpy(prompt.patches),
            "image_grid_thw": torch.from_numpy(prompt.grid),
            "mm_token_type_ids": (ids == 1022).int(),
        }
    )
    with torch.inference_mode():
        logits = built(input_ids=ids, position_ids=torch.from_numpy(places)[:, None], **given).logits
    return logits[0, len(prompt.ids) - 1 :].numpy()


def got(out: Path, built: "torch.nn.Module", prompt: Prompt) -> np.ndarray:
    with closing(load(out, built).open(1024)) as session:
        return np.stack([session.prefill(prompt).logits, *(session.decode(token) for token in TOKENS[:-1])])


RECIPES = {
    "fp32": Recipe(precision="fp32"),
    "faithful": Recipe(accuracy_level=0),
    "fast": Recipe(recipe="fast", accuracy_level=0),
    "int8": Recipe(precision="int8", accuracy_level=0),
    "symmetric": Recipe(symmetric=True, block_size=16, accuracy_level=0),
    "some layers at 8 bits": Recipe(
        recipe="fast", int8_layers=frozenset({0, 3}), head_bits=8, accuracy_level=0
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RECIPES)
def test_an_export_equals_transformers_with_the_same_weights(tmp_path: Path, name: str, shape: str) -> None:
    built = model(**SHAPES[shape])
    source, out, _ = exported(tmp_path, RECIPES[name], built)
    exact = expected(built, prompt := prompt_of(source, LAYOUTS["one image"]))
    round_in_place(built, RECIPES[name])
    ours = got(out, built, prompt)
    assert np.abs(ours - expected(built, prompt)).max() <= 1e-4
    if name != "fp32":
        assert np.abs(ours - exact).max() > 1e-2


def test_the_quick_kernels_stay_near_the_exact_ones(tmp_path: Path) -> None:
    built = model()
    source, out, _ = exported(tmp_path, Recipe(), built)
    prompt = prompt_of(source, LAYOUTS["one image"])
    round_in_place(built, Recipe())
    want, have = expected(built, prompt)[0], got(out, built, prompt)[0]
    assert want @ have / np.linalg.norm(want) / np.linalg.norm(have) > 0.998


def test_every_matrix_reports_its_error(tmp_path: Path) -> None:
    built = model()
    _, _, errors = exported(tmp_path, Recipe(), built)
    text = [error for error in errors if ".visual." not in error.name]
    assert len(text) == 4 * 7 + 2
    assert {(error.bits, error.block) for error in text if ".layers." in error.name} == {(4, 32)}
    assert all(0 < error.error <= 0.086 for error in text)
    errors = {error.name: error.error for error in text}
    weight = built.lm_head.weight.detach()
    away = moved(weight, Recipe().head(64)) - weight
    assert errors["lm_head.weight"] == pytest.approx(float(away.norm() / weight.norm()), rel=1e-5)


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sizes = [
        (exported(tmp_path / name, Recipe(), model(tie=tie))[1] / "weights.data").stat().st_size
        for name, tie in (("a", True), ("b", False))
    ]
    assert sizes[1] - sizes[0] > 1024 * 64


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(shortlist=32)], ids=["faithful", "searched head"])
def test_an_export_is_the_same_on_one_core_and_on_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    exports = []
    for cores in (1, 5):
        (tmp_path / str(cores)).mkdir()
        monkeypatch.setattr("os.cpu_count", lambda: cores)  # noqa: B023
        _, out, _ = exported(tmp_path / str(cores), recipe, model())
        exports.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert exports[0] == exports[1]
    assert "weights.data" in exports[0]


def test_an_option_that_fits_no_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"from 0 to 3, got \[4\]"):
        exported(tmp_path, Recipe(int8_layers=frozenset({4})), model())


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    built = model()
    with torch.no_grad():
        built.model.language_model.layers[2].mlp.up_proj.weight[3, 4] = torch.nan
    with pytest.raises(BackendError, match=r"layers\.2\.mlp\.up_proj\.weight' holds values that are not"):
        exported(tmp_path, Recipe(), built)


def batch(out: Path, rows: list[np.ndarray], capacity: int) -> np.ndarray:
    """Scores [rows, tokens, vocab] of prompts of different lengths in one batch, and of TOKENS after them."""
    session = onnxruntime.InferenceSession(out / "decoder.onnx", providers=["CPUExecutionProvider"])
    table = Embeddings.read(out, session.get_modelmeta().custom_metadata_map["embeddings"])
    lengths = np.array([len(row) for row in rows])
    shape = (len(rows), 2, capacity, 16)
    past = {
        f"past_key_values.{i}.{part}": np.zeros(shape, np.float32)
        for i in range(4)
        for part in ("key", "value")
    }
    names = ["logits", *(name.replace("past_key_values", "present") for name in past)]
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for row, given in zip(ids, rows, strict=True):
        row[: len(given)] = given
    scores, last = [], lengths - 1
    starts = np.zeros(len(rows), np.int64)
    for token in (None, *TOKENS[:-1]):
        if token is not None:
            ids, last = np.full((len(rows), 1), token), np.zeros_like(lengths)
            starts, lengths = lengths, lengths + 1
        embeddings = np.stack([table(row) for row in ids])
        places = starts[:, None] + np.arange(ids.shape[1])
        given = {
            "inputs_embeds": embeddings,
            **{f"deepstack.{index}": np.zeros_like(embeddings) for index in range(3)},
            "position_ids": np.broadcast_to(places, (3, *places.shape)).copy(),
            "seqlens_k": (lengths - 1).astype(np.int32),
            "total_sequence_length": np.array(lengths.max(), np.int32),
            "last": last[:, None],
            **past,
        }
        logits, *present = session.run(names, given)
        past = dict(zip(past, present, strict=True))
        scores.append(logits)
    return np.stack(scores, 1)


def test_rows_of_a_batch_have_lengths_of_their_own(tmp_path: Path) -> None:
    built = model()
    _, out, _ = exported(tmp_path, Recipe(precision="fp32"), built)
    rows = [np.arange(first, first + length) for first, length in ((1, 9), (50, 23), (200, 4))]
    together = batch(out, rows, 64)
    for row, scores in zip(rows, together, strict=True):
        assert np.abs(scores - expected(built, Prompt(row))).max() <= 1e-4
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_another_config_than_the_weights_is_named(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    tiny.write(source)
    config = (source / "config.json").read_text()
    (source / "config.json").write_text(config.replace('"intermediate_size": 96', '"intermediate_size": 128'))
    with pytest.raises(
        BackendError, match=r"gate_proj.* has shape \[96, 64\], config.json asks for \[128, 64\]"
    ):
        export(source, out, Recipe())
