"""Exports that are calibrated on prompts: what goes into each matrix, and what comes out of the export."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from backends import Prompt, RequestError, Runtime  # noqa: E402
from backends.export import MatrixError, Recipe, Samples, export  # noqa: E402
from backends.export.calibration.samples import embed_prompts  # noqa: E402
from backends.export.calibration.walk import Walk  # noqa: E402
from backends.export.quantize import Rounded, dequantise, quantise  # noqa: E402
from backends.onnx.backend import OnnxBackend  # noqa: E402
from backends.qwen3vl import Config  # noqa: E402
from backends.store import Scheme, Weights  # noqa: E402
from router.models.calibration import samples  # noqa: E402
from tests.export.test_decoder import expected, got  # noqa: E402
from tests.exports import SHAPES, exported, fp32, load, model, with_its_tower  # noqa: E402
from tests.torch.test_backend import LAYOUTS, prompt_of  # noqa: E402

FAST = Recipe(recipe="fast", accuracy_level=0, head_bits=8, calibrate=True)


def walked(folder: Path, prompts: list[Prompt], see: object, *, deepstack: bool = True) -> np.ndarray:
    """Scores [prompts, vocab] after each prompt, by the layers that calibration goes through, unrounded."""
    config, weights = Config.read(folder), Weights(folder)
    table = weights.read("model.language_model.embed_tokens.weight")
    states = embed_prompts(prompts, config, lambda ids: table[ids], see)  # type: ignore[arg-type]
    walk = Walk(states if deepstack else replace(states, deepstack=()), weights, config.text)
    for index in range(config.text.layers):
        for step, parts in STEPS.items():
            names = [f"model.language_model.layers.{index}.{part}.weight" for part in parts]
            getattr(walk, f"pass_{step}")(np.concatenate([weights.read(name) for name in names]))
    return walk.inputs[np.array(walk.ends) - 1] @ weights.read("lm_head.weight").T


STEPS = {
    "qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "out": ["self_attn.o_proj"],
    "gate_up": ["mlp.gate_proj", "mlp.up_proj"],
    "down": ["mlp.down_proj"],
}


def test_the_layers_of_calibration_are_the_decoder_s() -> None:
    folder, backend = fp32().folder, with_its_tower()
    prompts = [prompt_of(folder, messages) for messages in LAYOUTS.values()]
    scores = []
    for prompt in prompts:
        with closing(backend.open(1024)) as session:
            scores.append(session.prefill(prompt).logits)
    ours = walked(folder, prompts, backend.image_features)
    assert np.abs(ours - np.stack(scores)).max() <= 1e-4
    without = np.abs(walked(folder, prompts, backend.image_features, deepstack=False) - np.stack(scores))
    seen = np.array([prompt.patches is not None for prompt in prompts])
    assert (without.max(1)[seen] > 1e-2).all()
    assert (without.max(1)[~seen] <= 1e-4).all()


class Made(NamedTuple):
    source: Path
    plain: Path
    out: Path
    errors: list[MatrixError]


def calibrated(folder: Path, recipe: Recipe, built: "torch.nn.Module") -> Made:
    """The checkpoint, its export without calibration and with it, and the errors of that."""
    source, plain, _ = exported(folder, replace(recipe, calibrate=False), built)
    out = folder / "calibrated"
    out.mkdir()
    return Made(source, plain, out, export(source, out, recipe, None, samples(source)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return calibrated(tmp_path_factory.mktemp("made"), FAST, model())


def give_back(built: "torch.nn.Module", out: Path, recipe: Recipe) -> None:
    """Give transformers the matrices that the export holds, read from its graph."""
    read = matrices_of(out)
    text = built.model.language_model
    with torch.no_grad():
        for index, layer in enumerate(text.layers):
            for step, parts in STEPS.items():
                rows = 0
                for part in parts:
                    linear = layer.get_submodule(part)
                    scheme = recipe.body(index, linear.weight.shape[1])
                    assert scheme is not None
                    whole = read(f"layers.{index}.{step}", scheme, linear.weight.shape[1])
                    linear.weight.copy_(torch.from_numpy(whole[rows : rows + len(linear.weight)]))
                    rows += len(linear.weight)
        for table, scheme in ((built.lm_head, recipe.head), (text.embed_tokens, recipe.embeddings)):
            matrix = table.weight.detach().numpy()
            chosen = scheme(matrix.shape[1])
            assert chosen is not None
            back = dequantise(quantise(matrix, chosen), chosen, matrix.shape[1])
            table.weight.copy_(torch.from_numpy(back))


def matrices_of(out: Path) -> Callable[[str, Scheme, int], np.ndarray]:
    """Reads a matrix of an export, by name, from its decoder's graph."""
    tensors = {tensor.name: tensor for tensor in onnx.load(out / "decoder.onnx").graph.initializer}

    def read(name: str, scheme: Scheme, columns: int) -> np.ndarray:
        packed, scales = (to_array(tensors[name + part]) for part in ("", ".scales"))
        zeros = None if scheme.symmetric else to_array(tensors[name + ".zeros"])
        return dequantise(Rounded(packed, scales, zeros), scheme, columns)

    return read


@pytest.mark.parametrize(("shape", "symmetric"), [("untied", False), ("untied", True), ("like scenes", None)])
def test_a_calibrated_export_equals_transformers_with_the_same_weights(
    tmp_path: Path, shape: str, symmetric: bool | None
) -> None:
    built = model(**SHAPES[shape])
    recipe = replace(FAST, int8_layers=frozenset({1}), symmetric=symmetric)
    source, plain, out, _ = calibrated(tmp_path, recipe, built)
    prompt = prompt_of(source, LAYOUTS["one image"])
    exact = expected(built, prompt)
    give_back(built, out, recipe)
    ours = got(out, built, prompt)
    assert np.abs(ours - expected(built, prompt)).max() <= 1e-4
    assert np.abs(ours - exact).max() > 1e-2
    assert np.abs(ours - got(plain, built, prompt)).max() > 1e-2


def test_the_same_bytes_come_out_twice(made: Made, tmp_path: Path) -> None:
    export(made.source, tmp_path, FAST, None, samples(made.source))
    first, second, plain = (
        hashlib.sha256((folder / "weights.data").read_bytes()).hexdigest()
        for folder in (made.out, tmp_path, made.plain)
    )
    assert first == second != plain


def test_every_calibrated_matrix_says_what_it_gained(made: Made) -> None:
    layers = [error for error in made.errors if ".layers." in error.name]
    assert len(layers) == 4 * 7
    assert all(error.output_error is not None for error in layers)
    means = np.mean([(each.output_error, each.plain_output_error) for each in layers], axis=0)
    assert means[0] < 0.9 * means[1]
    rest = [error for error in made.errors if ".layers." not in error.name]
    assert all(error.output_error is error.plain_output_error is None for error in rest)


def test_a_recipe_and_its_samples_belong_together(tmp_path: Path) -> None:
    source = fp32().folder
    with pytest.raises(RequestError, match="give both or none"):
        export(source, tmp_path, FAST)
    with pytest.raises(RequestError, match="give both or none"):
        export(source, tmp_path, Recipe(), None, samples(source))
    with pytest.raises(RequestError, match="calibrate is for precision int4, got int8"):
        Recipe(precision="int8", calibrate=True)


def test_the_samples_are_of_many_kinds_and_always_the_same() -> None:
    first, second = (samples(fp32().folder) for _ in range(2))
    for one, other in zip(first.prompts, second.prompts, strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert (one.patches is None) == (other.patches is None)
        assert one.patches is None or np.array_equal(one.patches, other.patches)
    halves = [first.prompts[::2], first.prompts[1::2]]
    tokens = [sum(len(prompt.ids) for prompt in half) for half in halves]
    assert min(tokens) > 1000
    assert max(tokens) < 1.25 * min(tokens)
    images = [sum(prompt.patches is not None for prompt in part) for part in (*halves, first.held_out)]
    assert images == [6, 6, 3]
    seen = {prompt.ids.tobytes() for prompt in first.prompts}
    assert not seen & {prompt.ids.tobytes() for prompt in first.held_out}


def test_the_tower_of_the_export_is_what_is_calibrated_with(made: Made) -> None:
    calibrated_on = samples(made.source)
    prompt = next(prompt for prompt in calibrated_on.prompts if prompt.patches is not None)
    backend = OnnxBackend.load(made.out, Runtime(device="cpu", threads=1, kept_bytes=0))
    ours, theirs = calibrated_on.load_tower(made.out)(prompt), backend.image_features(prompt)
    assert len(ours) == len(theirs) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_samples_of_one_s_own_can_be_given(tmp_path: Path) -> None:
    source = fp32().folder
    prompts = [Prompt(np.arange(first, first + 40)) for first in (1, 50, 100)]
    blind = Samples(prompts[:2], prompts[2:], lambda folder: lambda prompt: [])
    errors = export(source, tmp_path, FAST, None, blind)
    assert sum(error.output_error is not None for error in errors) == 28
    assert load(tmp_path, model()).name == "onnx"
