"""However a checkpoint folder was saved, what is read of it is what transformers reads, or it is refused."""

import random
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from safetensors.torch import load_file, save_file  # noqa: E402

from backends import BackendError, Prompt, Runtime  # noqa: E402
from backends.base import Backend  # noqa: E402
from backends.export import Recipe, export  # noqa: E402
from backends.onnx.backend import OnnxBackend  # noqa: E402
from backends.onnx.torch_vision import TorchVisionEncoder  # noqa: E402
from backends.qwen3vl import Config, left_out, tensor_names  # noqa: E402
from backends.torch.backend import TorchBackend  # noqa: E402
from router.models import Listener, Model, ensure_export  # noqa: E402
from router.pool import BackendLoader  # noqa: E402
from tests.export.test_decoder import expected  # noqa: E402
from tests.store.layouts import EXTRAS, FILES, HEAD, NAMES, STORED, TIES, Layout, original, write  # noqa: E402
from tests.torch.test_backend import LAYOUTS, prompt_of  # noqa: E402

RUNTIME = Runtime(device="cpu", dtype="fp32", threads=1, kept_bytes=0)
DTYPES = (*STORED, "mixed")


REFUSED = {  # transformers fills a part of these with random numbers, or raises
    *("tied in the text part alone", "tied against the top", "untied, no head", "untied, no table"),
    *("of another family", "a short one"),
}


def layouts() -> list[Layout]:
    """Each way by itself, and sixteen of all together."""
    axes = {"files": FILES, "tie": tuple(TIES), "names": NAMES, "stored": DTYPES, "extra": EXTRAS}
    alone = [Layout()._replace(**{axis: way}) for axis, ways in axes.items() for way in ways[1:]]
    drawn = random.Random(14)
    return [Layout(), *alone, *(Layout(*map(drawn.choice, axes.values())) for _ in range(16))]


def truth(folder: Path, prompt: Prompt) -> np.ndarray | None:
    """The scores by transformers; None where it has no weights for a part of the model."""
    kind = transformers.Qwen3VLForConditionalGeneration
    try:
        built, loaded = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except RuntimeError:  # another shape
        return None
    return None if loaded["missing_keys"] else expected(built.eval(), prompt)[0]


def by_torch(folder: Path) -> Backend:
    return TorchBackend.load(folder, RUNTIME)


def by_onnx(folder: Path) -> Backend:
    out = folder.parent / "export"
    out.mkdir()
    export(folder, out, Recipe(precision="fp32"))
    return OnnxBackend.load(out, RUNTIME)


def scores(backend: Backend, prompt: Prompt) -> np.ndarray:
    with closing(backend.open(1024)) as session:
        return session.prefill(prompt).logits


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: ", ".join(layout))
def test_every_backend_reads_what_transformers_reads(tmp_path: Path, layout: Layout) -> None:
    folder = write(tmp_path / "checkpoint", layout)
    prompt = prompt_of(folder, LAYOUTS["one image"])
    right = truth(folder, prompt)
    assert (right is None) == bool(REFUSED & set(layout))
    for load in (by_torch, by_onnx):
        if right is None:
            with pytest.raises(BackendError, match=r"no tensor '|' has shape") as caught:
                load(folder)
            assert caught.value.code == "model_invalid"
        else:
            assert np.abs(scores(load(folder), prompt) - right).max() <= 1e-4


def test_there_are_forty_layouts_or_more() -> None:
    assert len(set(layouts())) >= 40


@pytest.mark.parametrize("load", [by_torch, by_onnx])
@pytest.mark.parametrize(
    ("layout", "other"),
    [
        (Layout(files="old shards beside"), "file"),
        (Layout(tie="tied, a head of its own"), "head"),
        (Layout(names="both"), "names"),
    ],
    ids=["file", "head", "names"],
)
def test_the_other_tensors_would_give_other_scores(tmp_path: Path, layout: Layout, other: str, load) -> None:
    folder = write(tmp_path / "checkpoint", layout)
    prompt = prompt_of(folder, LAYOUTS["one image"])
    right = truth(folder, prompt)
    single = folder / "model.safetensors"
    if other == "file":
        single.unlink()
    else:
        tensors = load_file(single)
        kept = {
            name: tensor
            for name, tensor in tensors.items()
            if name != HEAD and not (other == "names" and name.startswith(("language_model.", "visual.")))
        }
        save_file(kept if other == "head" else {**kept, HEAD: tensors[HEAD]}, single)
    assert np.abs(scores(load(folder), prompt) - right).max() > 1e-2


DROPPED = {
    Layout(files="old shards beside"): "model.safetensors is read, and not model-00001-of-00003.safetensors",
    Layout(tie="tied, a head of its own"): "lm_head.weight is another matrix than the embeddings, and is",
    Layout(names="both"): "'language_model.embed_tokens.weight' is read, and not 'model.language_model.embed",
    Layout(extra="more layers"): "'model.language_model.layers.4.mlp.up_proj.weight' is not of the model",
    Layout(extra="a bias"): "'lm_head.bias' is not of the model",
    Layout(extra="other norm"): "'model.language_model.final_norm.weight' is not of the model",
}


@pytest.mark.parametrize("layout", DROPPED, ids=lambda layout: ", ".join(layout))
def test_what_is_left_out_and_matters_is_told(tmp_path: Path, layout: Layout) -> None:
    folder = write(tmp_path / "checkpoint", layout)
    told: list[str] = []
    loader = BackendLoader(Model("m", folder), RUNTIME, listener=Listener(notice=told.append))
    loader.load("torch")
    assert told == list(left_out(folder))
    assert DROPPED[layout] in told[0]


def test_an_export_tells_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    folder = write(tmp_path / "checkpoint", Layout(tie="tied, a head of its own"))
    told: list[str] = []
    ensure_export(Model("m", folder), Recipe(), Listener(notice=told.append))
    assert told == list(left_out(folder))
    assert len(told) == 1


@pytest.mark.parametrize("extra", ["nothing", "buffers", "other numbers", "NaN"])
@pytest.mark.parametrize("tie", ["untied", "tied", "tied, the head saved", "tied, the same head"])
def test_nothing_is_told_where_nothing_is_lost(tmp_path: Path, tie: str, extra: str) -> None:
    folder = write(tmp_path / "checkpoint", Layout(files="old index beside", tie=tie, extra=extra))
    assert left_out(folder) == ()


def test_the_names_of_a_model_are_those_of_transformers(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint", Layout())
    assert set(tensor_names(Config.read(folder))) == set(original())


BROKEN = (
    "lm_head.weight",
    "model.language_model.embed_tokens.weight",
    "model.language_model.norm.weight",
    "model.language_model.layers.1.input_layernorm.weight",
    "model.language_model.layers.2.self_attn.q_norm.weight",
    "model.language_model.layers.3.mlp.down_proj.weight",
    "model.visual.pos_embed.weight",
    "model.visual.patch_embed.proj.weight",
    "model.visual.blocks.2.mlp.linear_fc1.weight",
    "model.visual.blocks.1.attn.qkv.bias",
    "model.visual.merger.norm.weight",
    "model.visual.deepstack_merger_list.1.linear_fc2.bias",
)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", BROKEN)
def test_a_value_that_is_no_finite_number_is_named(tmp_path: Path, name: str, value: float) -> None:
    folder = write(tmp_path / "checkpoint", Layout(stored="BF16"))
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[-1] = value
    save_file(tensors, folder / "model.safetensors")
    for recipe in (Recipe(), Recipe(precision="fp32")):
        out = tmp_path / recipe.precision
        out.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            refused(lambda out=out, recipe=recipe: export(folder, out, recipe), folder, name)
    refused(lambda: by_torch(folder), folder, name)
    if "visual" in name:
        refused(lambda: TorchVisionEncoder(folder, RUNTIME), folder, name)


def refused(load, folder: Path, name: str) -> None:
    with pytest.raises(BackendError) as caught:
        load()
    assert caught.value.code == "model_invalid"
    assert f"{folder / 'model.safetensors'}: '{name}' holds values that are not finite" in str(caught.value)


def test_the_same_folder_without_it_loads(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint", Layout(stored="BF16"))
    prompt = prompt_of(folder, LAYOUTS["one image"])
    assert np.isfinite(scores(by_torch(folder), prompt)).all()
