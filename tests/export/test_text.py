"""text.onnx under onnxruntime-genai gives the scores of decoder.onnx, over the same weights file."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
genai = pytest.importorskip("onnxruntime_genai")

import onnx  # noqa: E402

from backends import Prompt  # noqa: E402
from backends.export import Recipe  # noqa: E402
from tests.exports import SHAPES, exported, load, model  # noqa: E402

IDS = np.random.default_rng(0).integers(0, 1000, 37)
TOKENS = 16

RECIPES = {
    "fp32": Recipe(precision="fp32"),
    "faithful": Recipe(),
    "fast": Recipe(recipe="fast"),
    "symmetric": Recipe(symmetric=True, head_bits=4),
    "symmetric head": Recipe(symmetric=True),
    "searched head": Recipe(shortlist=32),
}


def answered(out: Path, parts: list[np.ndarray]) -> tuple[list[int], np.ndarray]:
    """Greedy tokens of onnxruntime-genai's own loop, and the scores [tokens, vocab] that it saw."""
    params = genai.GeneratorParams(built := genai.Model(str(out)))
    params.set_search_options(max_length=len(IDS) + TOKENS, do_sample=False)
    generator = genai.Generator(built, params)
    for part in parts:
        generator.append_tokens(part.astype(np.int32)[None])
    tokens, scores = [], []
    while len(tokens) < TOKENS:
        scores.append(np.array(generator.get_logits()).reshape(-1))
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens, np.stack(scores)


def decoded(out: Path, built: "torch.nn.Module", tokens: list[int]) -> np.ndarray:
    with closing(load(out, built).open(1024)) as session:
        return np.stack(
            [session.prefill(Prompt(IDS)).logits, *(session.decode(token) for token in tokens[:-1])]
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RECIPES)
def test_genai_gives_the_tokens_of_decoder_onnx(tmp_path: Path, name: str, shape: str) -> None:
    built = model(**SHAPES[shape])
    _, out, _ = exported(tmp_path, RECIPES[name], built)
    tokens, scores = answered(out, [IDS])
    ours = decoded(out, built, tokens)
    assert ours.argmax(-1).tolist() == tokens
    # with a tied table a tiny model repeats its last token: there the scores below are the test
    assert len(set(tokens)) >= 3 or "tie" in SHAPES[shape]
    assert np.abs(ours - scores).max() <= 1e-4


def test_genai_may_read_a_prompt_in_parts(tmp_path: Path) -> None:
    _, out, _ = exported(tmp_path, Recipe(precision="fp32"), model())
    whole, parts = answered(out, [IDS]), answered(out, [IDS[:20], IDS[20:]])
    assert whole[0] == parts[0]
    assert np.abs(whole[1] - parts[1]).max() <= 2e-5


def test_both_graphs_read_one_weights_file(tmp_path: Path) -> None:
    _, out, _ = exported(tmp_path, Recipe(), model())
    places = {}
    for name in ("decoder.onnx", "text.onnx"):
        graph = onnx.load(out / name, load_external_data=False).graph
        external = [tensor for tensor in graph.initializer if tensor.external_data]
        places[name] = {tuple(entry.value for entry in tensor.external_data) for tensor in external}
        assert {tensor.external_data[0].value for tensor in external} == {"weights.data"}
    assert places["decoder.onnx"] < places["text.onnx"]
    assert not (out / "weights.data").is_symlink()


def test_end_tokens_come_from_the_generation_config(tmp_path: Path) -> None:
    source, out, _ = exported(tmp_path, Recipe(precision="fp32"), model())
    described = json.loads((out / "genai_config.json").read_text())["model"]
    wanted = json.loads((source / "generation_config.json").read_text())["eos_token_id"]
    assert described["eos_token_id"] == (wanted if isinstance(wanted, list) else [wanted])
    assert described["context_length"] == 1024
