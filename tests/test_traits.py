"""What each backend says that it is, and whether that is true."""

from contextlib import closing
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import backends
from backends import BackendError, Prefilled, Runtime, Traits
from router import Message, Picture
from router.models import ensure_export, find
from router.prompt import PromptBuilder

SHIPPED = backends.names()
RUNTIME = Runtime(device="cpu", dtype="fp32", threads=1)
IMAGE = Picture(np.full((64, 64, 3), 128, np.uint8))


@pytest.fixture(params=SHIPPED)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if (problem := backends.capability(request.param, "cpu").problem) is not None:
        pytest.skip(problem)
    monkeypatch.setenv("HYBRID_SCRIPT", '{"tokens": [40]}')
    chosen: str = request.param
    return chosen


def folder_of(traits: Traits) -> Path:
    return ensure_export(find()) if traits.reads_export else find().folder


def test_what_is_told_without_an_import_is_what_the_class_declares(name: str) -> None:
    loaded = backends.load(name, folder_of(backends.capability(name).traits), RUNTIME)
    assert type(loaded).traits == backends.capability(name).traits
    assert loaded.traits == type(loaded).traits
    assert (type(loaded).name, loaded.device) == (name, "cpu")
    assert loaded.dtype == ("" if loaded.traits.for_tests else "float32")


def test_it_sees_images_or_refuses_them_as_it_declares(name: str) -> None:
    traits = backends.capability(name).traits
    prompt = PromptBuilder.read(find().folder).plan((Message.of("user", IMAGE, "Hi"),)).prompt()
    with closing(backends.load(name, folder_of(traits), RUNTIME).open(256)) as session:
        if traits.sees_images:
            assert isinstance(session.prefill(prompt), Prefilled)
            return
        with pytest.raises(BackendError, match="reads text"):
            session.prefill(prompt)


def test_it_reads_an_export_or_a_checkpoint_as_it_declares(name: str) -> None:
    if backends.capability(name).traits.reads_export:
        with pytest.raises(BackendError, match="is missing; export the model again"):
            backends.load(name, find().folder, RUNTIME)
    else:
        assert backends.load(name, find().folder, RUNTIME).name == name


def test_one_that_decodes_together_has_what_does_it(name: str) -> None:
    loaded = backends.load(name, folder_of(backends.capability(name).traits), RUNTIME)
    batching = hasattr(import_module(type(loaded).__module__), "Batcher")
    assert loaded.traits.decodes_together is batching


class Silent:
    """Says nothing about itself."""

    name = "silent"


def test_a_class_that_does_not_say_what_it_is_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.registered", {})
    with pytest.raises(
        ValueError, match=r"does not say what it is; give the class traits = backends\.Traits"
    ):
        backends.register(Silent)  # type: ignore[arg-type]
    assert "silent" not in backends.names()


def test_nor_does_another_packages_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("silent", "tests.test_traits:Silent", backends.GROUP)
    monkeypatch.setattr("backends.entry_points", lambda group: [entry])
    backends.plugins.cache_clear()
    try:
        assert "does not say what it is" in (backends.capability("silent").problem or "")
        with pytest.raises(BackendError, match=r"cannot be used: .*does not say what it is"):
            backends.load("silent", find().folder)
    finally:
        backends.plugins.cache_clear()


def test_only_whom_it_is_for_is_shown_a_backend_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYBRID_SCRIPT", raising=False)
    assert "scripted" not in backends.offered()
    monkeypatch.setenv("HYBRID_SCRIPT", '{"tokens": [40]}')
    assert "scripted" in backends.offered()
