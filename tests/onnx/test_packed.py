"""The packed variant of an export: the same scores, one file of weights for both backends, never stale."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxruntime_genai")

import onnx  # noqa: E402

import backends  # noqa: E402
from backends import BackendError, Prompt, Runtime  # noqa: E402
from backends.export import Recipe  # noqa: E402
from backends.machine import Processor  # noqa: E402
from backends.onnx import packed  # noqa: E402
from backends.onnx.packed import Variant  # noqa: E402
from backends.store import (  # noqa: E402
    Manifest,
    Source,
    folder,
    verify_folder,
)
from tests.exports import exported, model  # noqa: E402
from tests.stand_in import listing  # noqa: E402

needs_blobs = pytest.mark.skipif(
    Processor.read().has("avx2") is False, reason="onnxruntime packs nothing on this processor"
)
pytestmark = needs_blobs

IDS = np.random.default_rng(0).integers(0, 1000, 37)
TOKENS = 12
RECIPES = {
    "fp32": Recipe(precision="fp32"),
    "int8": Recipe(precision="int8"),
    "faithful": Recipe(),
    "fast": Recipe(recipe="fast"),
    "symmetric": Recipe(symmetric=True, head_bits=4),
    "searched head": Recipe(shortlist=32),
}
READERS = ("onnx", "genai")


def export(place: Path, recipe: Recipe = RECIPES["fast"], built=None, **shape: object) -> Path:
    place.mkdir()
    _, out, matrices = exported(place, recipe, built or model(**shape))
    describe(out, recipe, matrices)
    return out


def describe(out: Path, recipe: Recipe = RECIPES["fast"], matrices=(), revision: str = "1") -> None:
    (out / "manifest.json").unlink(missing_ok=True)
    Manifest.describe(out, Source("tiny", revision, "f"), recipe, matrices).write(out)


def ensure(out: Path, place: Path, heard: list[str] | None = None) -> Path:
    return Variant(out, place).ensure(lambda *_: None, (heard if heard is not None else []).append)


def scores(name: str, out: Path, variant: Path | None) -> np.ndarray:
    """Scores [TOKENS, vocab] of a greedy answer."""
    backend = backends.load(name, out, Runtime(device="cpu", threads=1, packed=variant))
    with closing(backend.open(128)) as session:
        seen = [session.prefill(Prompt(IDS)).logits]
        while len(seen) < TOKENS:
            seen.append(session.decode(int(seen[-1].argmax())))
    return np.stack(seen)


def blobs(graph: Path) -> dict[str, list[str]]:
    """What names blobs in a graph, by tensor."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    named = {t.name: [e.value for e in t.external_data if e.key.startswith("prepacked")] for t in tensors}
    return {name: values for name, values in named.items() if values}


def matrices_of(graph: Path) -> set[str]:
    nodes = onnx.load(graph, load_external_data=False).graph.node
    return {node.input[1] for node in nodes if node.op_type in ("MatMulNBits", "FusedMatMul")}


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 0x44]))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("packed") / "export")


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_both_backends_give_the_same_scores_to_the_bit(tmp_path: Path, name: str, tie: bool) -> None:
    out = export(tmp_path / "export", RECIPES[name], tie=tie)
    variant = ensure(out, tmp_path / "place")
    for reader in READERS:
        plain = scores(reader, out, None)
        assert np.array_equal(scores(reader, out, variant), plain)
        assert np.ptp(plain) > 1


def test_one_blob_serves_both_backends(out: Path, tmp_path: Path) -> None:
    """Control of the test above: whoever does not read the blob does not see what is wrong with it."""
    variant = ensure(out, tmp_path)
    before = [scores(reader, out, variant) for reader in READERS]
    offset, length, _ = blobs(variant / "decoder.onnx")["layers.0.qkv"][0].split("|")[1].split(";")
    flip(variant / "weights.data", int(offset) + int(length) // 4)
    after = [scores(reader, out, variant) for reader in READERS]
    assert all(np.abs(one - other).max() > 1e-3 for one, other in zip(before, after, strict=True))
    assert np.array_equal(*after)


def test_both_graphs_name_the_blob_of_every_matrix(out: Path, tmp_path: Path) -> None:
    variant = ensure(out, tmp_path)
    named = blobs(variant / "decoder.onnx")
    assert named == blobs(variant / "text.onnx")
    assert named.keys() == matrices_of(out / "decoder.onnx") == matrices_of(out / "text.onnx")
    assert blobs(out / "decoder.onnx") == {}


def test_the_weights_stand_unchanged_before_the_blobs(out: Path, tmp_path: Path) -> None:
    variant = ensure(out, tmp_path)
    weights, both = (out / "weights.data").read_bytes(), (variant / "weights.data").read_bytes()
    assert both[: len(weights)] == weights
    assert len(both) > 1.2 * len(weights)
    assert verify_folder(variant) == verify_folder(out) == []


def test_equal_matrices_have_one_blob_between_them(tmp_path: Path) -> None:
    built = model()
    layers = built.model.language_model.layers
    layers[2].load_state_dict(layers[1].state_dict())
    out = export(tmp_path / "export", built=built)
    variant = ensure(out, tmp_path / "place")
    named = blobs(variant / "decoder.onnx")
    assert "layers.1.qkv" in named
    assert "layers.2.qkv" not in named
    for reader in READERS:
        assert np.array_equal(scores(reader, out, variant), scores(reader, out, None))


def test_a_variant_is_made_once_and_leaves_nothing_beside_it(out: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    variant = ensure(out, tmp_path, heard)
    made = (variant / "weights.data").stat()
    assert ensure(out, tmp_path, heard) == variant
    assert (variant / "weights.data").stat() == made
    assert len(heard) == 1
    assert listing(tmp_path) == [f".{variant.name}.json", variant.name]
    assert Variant(out, tmp_path).made() == [variant]


def test_progress_ends_below_the_bytes_of_the_matrices(out: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    Variant(out, tmp_path).ensure(lambda *step: told.append(step), lambda _: None)
    assert len(told) == len(matrices_of(out / "decoder.onnx"))
    done, totals = [step[1] for step in told], {step[2] for step in told}
    assert done == sorted(done)
    assert done[0] == 0 < done[-1] < totals.pop()
    assert not totals


@pytest.mark.parametrize("damage", ["a blob", "a weight", "the length", "a graph", "a file that is gone"])
def test_a_damaged_variant_is_made_again(out: Path, tmp_path: Path, damage: str) -> None:
    variant = ensure(out, tmp_path)
    data = variant / "weights.data"
    whole = {file.name: file.read_bytes() for file in variant.iterdir()}
    match damage:
        case "a blob":
            flip(data, data.stat().st_size - 1000)
        case "a weight":
            flip(data, 1000)
        case "the length":
            data.write_bytes(whole[data.name][:-1])
        case "a graph":
            flip(variant / "text.onnx", 3000)
        case _:
            (variant / "genai_config.json").unlink()
    heard: list[str] = []
    assert ensure(out, tmp_path, heard) == variant
    assert len(heard) == 1
    assert {file.name: file.read_bytes() for file in variant.iterdir()} == whole


def test_a_variant_goes_with_its_onnxruntime(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = ensure(out, tmp_path)
    monkeypatch.setattr("onnxruntime.__version__", "1.99.0")
    heard: list[str] = []
    assert ensure(out, tmp_path, heard) == variant
    assert len(heard) == 1
    assert json.loads((variant / "packed.json").read_text())["onnxruntime"] == "1.99.0"


def test_a_variant_goes_with_its_export(tmp_path: Path) -> None:
    out = export(tmp_path / "export")
    variant = ensure(out, tmp_path / "place")
    describe(out, revision="2")
    heard: list[str] = []
    assert ensure(out, tmp_path / "place", heard) == variant
    assert len(heard) == 1


def test_another_processor_has_another_variant(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ensure(out, tmp_path)

    def see(*features: str) -> Path:
        monkeypatch.setattr(packed.Processor, "read", lambda: Processor("x86_64", "", frozenset(features)))
        return Variant(out, tmp_path).folder

    assert see("avx2") != see("avx2", "avx512_vnni")
    # what speaks of something else than computing does not count
    assert see("avx2") == see("avx2", "smep", "ibrs")
    there = ensure(out, tmp_path)
    assert there != here
    assert Variant(out, tmp_path).made() == sorted([here, there])


def test_another_export_of_the_same_name_has_another_variant(out: Path, tmp_path: Path) -> None:
    other = tmp_path / out.name
    shutil.copytree(out, other)
    assert Variant(out, tmp_path).folder != Variant(other, tmp_path).folder


def test_variants_of_exports_that_are_gone_are_removed(out: Path, tmp_path: Path) -> None:
    gone, place = tmp_path / "gone", tmp_path / "place"
    shutil.copytree(out, gone)
    orphan = ensure(gone, place)
    shutil.rmtree(gone)
    kept = ensure(out, place)
    assert not orphan.exists()
    assert listing(place) == [f".{kept.name}.json", kept.name]


def test_a_removed_variant_leaves_nothing(out: Path, tmp_path: Path) -> None:
    ensure(out, tmp_path)
    Variant(out, tmp_path).remove()
    assert listing(tmp_path) == []


def test_a_full_disk_is_told_before_anything_is_written(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (out / "weights.data").stat().st_size
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * size))
    with pytest.raises(BackendError, match="make room") as caught:
        ensure(out, tmp_path)
    assert caught.value.code == "disk_full"
    assert listing(tmp_path) == []


def test_an_onnxruntime_that_saves_no_blobs_is_named(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backends.onnx import blobs

    monkeypatch.setattr(blobs, "ENTRY", "nothing begins like this")
    with pytest.raises(BackendError, match=f"onnxruntime {ort.__version__} has no packed matrices") as caught:
        ensure(out, tmp_path)
    assert caught.value.code == "backend_unavailable"
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("device", "providers", "expected"),
    [
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], True),
        ("auto", ["CPUExecutionProvider"], True),
        ("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"], False),
        ("cuda", ["CPUExecutionProvider"], False),
    ],
)
def test_a_variant_helps_where_the_processor_multiplies(
    monkeypatch: pytest.MonkeyPatch, device: str, providers: list[str], expected: bool
) -> None:
    available: Callable[[], list[str]] = lambda: providers  # noqa: E731
    monkeypatch.setattr(ort, "get_available_providers", available)
    assert packed.helps(device) is expected
