"""Packed variants in the cache: made when a backend is loaded, counted and removed with their export."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxruntime_genai")

import backends
from backends import Backend, Runtime
from backends.export import Recipe
from router import Message, Request, Router, Sampling
from router.bench.contenders import contender
from router.cli import run
from router.models import Listener, Model, ensure_export, ensure_packed, find
from router.models import exports as module
from router.models.exports import packed
from tests import tiny
from tests.onnx.test_packed import needs_blobs
from tests.stand_in import listing

pytestmark = needs_blobs

RUNTIME, RECIPE = Runtime(device="cpu", threads=1), Recipe(recipe="fast")
QUESTION = Request((Message.of("user", "Which colours?"),), Sampling(max_tokens=8, ignore_eos=True))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return find(str(tiny.write(tmp_path_factory.mktemp("model") / "tiny")))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "WORTH", 1)
    return tmp_path / "home"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path | None]:
    """The variants that backends were loaded with."""
    given: dict[str, Path | None] = {}
    load = backends.load

    def watch(name: str, folder: Path, runtime: Runtime) -> Backend:
        given[name] = runtime.packed
        return load(name, folder, runtime)

    monkeypatch.setattr(backends, "load", watch)
    return given


def answers(source: Model, notices: list[str] | None = None) -> list[tuple[int, ...]]:
    """What the onnx and the genai backend of one router answer."""
    heard = notices if notices is not None else []
    router = Router(source, RUNTIME, RECIPE, Listener(notice=heard.append))
    tokens = []
    for name in ("onnx", "genai"):
        request = Request(QUESTION.messages, QUESTION.sampling, name)
        tokens.append(router.complete(request).tokens)
    return tokens


def test_the_router_loads_both_backends_from_one_variant(source: Model, home: Path, loaded) -> None:
    notices: list[str] = []
    tokens = answers(source, notices)
    (variant,) = packed(ensure_export(source, RECIPE)).made()
    assert loaded == {"onnx": variant, "genai": variant}
    assert variant.parent == home / "packed"
    assert [text for text in notices if "arranging" in text] == notices
    assert len(notices) == 1
    assert tokens[0] == tokens[1]
    assert len(set(tokens[0])) > 2


def test_a_benchmark_measures_the_variant_that_a_router_loads(source: Model, loaded) -> None:
    export = ensure_export(source, RECIPE)
    for name in ("onnx", "genai"):
        measured = contender(name, find(str(export)), RUNTIME)
        assert measured.make is not None
        measured.make()
        assert measured.disk_bytes == sum(
            file.stat().st_size for folder in (export, *packed(export).made()) for file in folder.iterdir()
        )
    (variant,) = packed(export).made()
    assert loaded == {"onnx": variant, "genai": variant}


def test_few_weights_are_not_worth_a_variant(source: Model, home: Path, loaded, monkeypatch) -> None:
    monkeypatch.setattr(module, "WORTH", 64 << 20)
    answers(source)
    assert loaded == {"onnx": None, "genai": None}
    assert not (home / "packed").exists()


def test_a_graphics_card_has_no_use_for_a_variant(source: Model, home: Path) -> None:
    assert ensure_packed(ensure_export(source, RECIPE), "cuda", Listener()) is None
    assert not (home / "packed").exists()


def test_where_no_variant_can_be_made_the_weights_are_packed_in_memory(
    source: Model, home: Path, loaded
) -> None:
    usual = answers(source)
    packed(ensure_export(source, RECIPE)).remove()
    (home / "packed").rmdir()
    (home / "packed").write_bytes(b"a file in its place")
    notices: list[str] = []
    assert answers(source, notices) == usual
    assert loaded == {"onnx": None, "genai": None}
    assert len(notices) == 2
    assert all(text.startswith("each backend holds weights of its own: nothing can be") for text in notices)


def test_a_variant_is_used_where_nothing_can_be_written(
    source: Model, home: Path, loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(source)
    (variant,) = packed(ensure_export(source, RECIPE)).made()
    # root may write everywhere, so permissions would not hold everybody back
    monkeypatch.setattr("backends.store.folder.os.access", lambda *_: False)
    answers(source)
    assert loaded == {"onnx": variant, "genai": variant}


def test_a_variant_is_counted_and_removed_with_its_export(source: Model, home: Path, capsys) -> None:
    export = ensure_export(source, RECIPE)

    def listed() -> int:
        assert run(["models", "list", "--json"]) == 0
        sizes = {entry["name"]: entry["size"] for entry in json.loads(capsys.readouterr().out)}
        return int(sizes[export.name])

    before = listed()
    variant = ensure_packed(export, "cpu", Listener())
    assert variant is not None
    assert listed() - before == sum(file.stat().st_size for file in variant.iterdir())
    assert run(["models", "rm", export.name]) == 0
    assert listing(home / "packed") == []
    assert listing(home / "exports") == []


def test_the_blobs_are_read_before_a_backend_maps_them(
    source: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Path, int]] = []
    monkeypatch.setattr("backends.onnx.packed.drop", lambda file: calls.append(("drop", file, 0)))
    monkeypatch.setattr(
        "backends.onnx.packed.fetch", lambda file, first: calls.append(("fetch", file, first))
    )
    export = ensure_export(source, RECIPE)
    variant = ensure_packed(export, "cpu", Listener())
    assert variant is not None
    weights, first = variant / "weights.data", (export / "weights.data").stat().st_size
    assert calls == [("drop", weights, 0), ("fetch", weights, first)]  # when it was written
    assert ensure_packed(export, "cpu", Listener()) == variant
    assert calls[2:] == [("fetch", weights, first)]


def test_an_export_without_a_manifest_is_loaded_as_it_is(source: Model, home: Path) -> None:
    export = ensure_export(source, RECIPE)
    (export / "manifest.json").unlink()
    notices: list[str] = []
    assert ensure_packed(export, "cpu", Listener(notice=notices.append)) is None
    (said,) = notices
    assert "manifest.json" in said
