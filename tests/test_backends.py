"""Backends by name, and the scripted one."""

import json
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import backends
from backends import BackendError, Capability, Prompt, RequestError, Runtime, Traits
from backends.scripted import Script, ScriptedBackend
from router.models import find

PROMPT = Prompt(np.array([1, 2, 3]))


def test_ours_are_known() -> None:
    assert {"torch", "scripted"} <= set(backends.names())
    assert backends.capability("scripted") == Capability(Traits(sees_images=True, for_tests=True))


def test_a_missing_library_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.find_spec", lambda name: None)
    problem = "torch and transformers and safetensors not installed: pip install 'hybrid-router[torch]'"
    assert backends.capability("torch").problem == problem
    with pytest.raises(BackendError, match="backend 'torch' cannot be used: torch and transformers"):
        backends.load("torch", find().folder)


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        RequestError, match="no backend is named 'gpu'; choose one of torch, onnx, genai, scripted"
    ):
        backends.load("gpu", find().folder)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entries = [
        EntryPoint("mine", "tests.test_backends:Mine", "hybrid.backends"),
        EntryPoint("broken", "no_such_package:Backend", "hybrid.backends"),
    ]
    monkeypatch.setattr("backends.entry_points", lambda group: entries)
    backends.plugins.cache_clear()
    yield
    backends.plugins.cache_clear()


class Mine(ScriptedBackend):
    name = "mine"
    traits = Traits(sees_images=False)

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> "Mine":
        return cls(Script((1,)), vocab=8)


@pytest.mark.usefixtures("plugins")
def test_another_package_can_add_a_backend() -> None:
    assert backends.names()[-2:] == ("mine", "broken")
    assert backends.capability("mine") == Capability(Traits(sees_images=False))
    assert backends.load("mine", find().folder).name == "mine"


@pytest.mark.usefixtures("plugins")
def test_a_broken_addition_is_a_problem_of_its_own() -> None:
    problem = backends.capability("broken").problem
    assert problem is not None
    assert "no_such_package" in problem
    with pytest.raises(BackendError, match="no_such_package"):
        backends.load("broken", find().folder)


def test_a_backend_of_ones_own_is_known_once_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.registered", {})
    backends.register(Mine)
    assert backends.names()[-1] == "mine"
    assert backends.capability("mine") == Capability(Traits(sees_images=False))
    assert isinstance(backends.load("mine", find().folder), Mine)
    for taken in (Mine, ScriptedBackend):
        with pytest.raises(ValueError, match="already"):
            backends.register(taken)


def test_an_addition_that_fails_in_its_own_way_does_not_stop_the_others(monkeypatch, plugins) -> None:
    entry = EntryPoint("worse", "tests.test_backends:NOT_THERE", "hybrid.backends")
    monkeypatch.setattr("backends.entry_points", lambda group: [entry])
    backends.plugins.cache_clear()
    problem = backends.capability("worse").problem
    assert problem is not None
    assert "NOT_THERE" in problem


def test_two_sessions_play_the_script_on_their_own() -> None:
    backend = ScriptedBackend(Script((5, 6, 7)), vocab=8)
    with closing(backend.open(9)) as first, closing(backend.open(9)) as second:
        assert int(first.prefill(PROMPT).logits.argmax()) == 5
        assert int(first.decode(5).argmax()) == 6
        assert int(second.prefill(PROMPT).logits.argmax()) == 5
        assert int(first.decode(6).argmax()) == 7
        assert int(first.decode(7).argmax()) == 7
        assert backend.open_sessions == 2
    assert backend.open_sessions == 0


def test_a_script_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_SCRIPT", json.dumps({"tokens": [4], "delay": 0.5}))
    backend = backends.load("scripted", find().folder)
    assert isinstance(backend, ScriptedBackend)
    assert backend.script == Script((4,), 0.5)
    assert backend.vocab == 1024


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"tokens": 5}', '{"tokens": [1], "speed": 2}', '{"tokens": []}']
)
def test_what_is_no_script_is_said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HYBRID_SCRIPT", text)
    with pytest.raises(BackendError, match="HYBRID_SCRIPT"):
        backends.load("scripted", find().folder)


def test_no_script_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYBRID_SCRIPT", raising=False)
    with pytest.raises(BackendError, match="which is not set"):
        backends.load("scripted", find().folder)
