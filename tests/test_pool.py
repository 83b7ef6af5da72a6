"""Backends in memory, and which is let go."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends import Backend, BackendError, Runtime
from backends.scripted import Script, ScriptedBackend
from router.models import find
from router.pool import BackendLoader, BackendPool

SIZES = {"small": 2, "medium": 3, "large": 6, "huge": 50}


def made(budget: int | None, load: Callable[[str], Backend] | None = None) -> tuple[BackendPool, list[str]]:
    """Backends of the SIZES, and the names of those that are loaded, in order."""
    loads: list[str] = []

    class Loader(BackendLoader):
        def load(self, name: str) -> Backend:
            loads.append(name)
            return load(name) if load else ScriptedBackend(Script((1,)), vocab=8)

        def memory(self, name: str) -> int:
            return SIZES[name]

    return BackendPool(Loader(find(), Runtime()), budget), loads


def test_a_backend_is_loaded_once() -> None:
    backends, loads = made(10)
    assert "small" not in backends
    assert backends.get("small") is backends.get("small")
    assert "small" in backends
    assert loads == ["small"]


def test_the_one_used_least_recently_goes_first_and_its_memory_with_it() -> None:
    backends, loads = made(10)
    medium = weakref.ref(backends.get("medium"))
    backends.get("small")
    backends.get("medium")
    backends.get("large")
    assert [name for name in SIZES if name in backends] == ["medium", "large"]
    assert medium() is not None
    backends.get("small")
    assert [name for name in SIZES if name in backends] == ["small", "large"]
    assert medium() is None
    assert loads == ["medium", "small", "large", "small"]


def test_whoever_answers_with_one_that_is_let_go_keeps_it() -> None:
    backends, _ = made(10)
    busy = backends.get("large")
    session = busy.open(8)
    backends.get("huge")
    assert "large" not in backends
    assert int(session.decode(1).argmax()) == 1


def test_what_is_larger_than_everything_allowed_is_loaded_alone() -> None:
    backends, _ = made(10)
    backends.get("small")
    backends.get("huge")
    assert [name for name in SIZES if name in backends] == ["huge"]


def test_without_a_budget_all_stay() -> None:
    backends, _ = made(None)
    for name in SIZES:
        backends.get(name)
    assert all(name in backends for name in SIZES)
    backends.clear()
    assert not any(name in backends for name in SIZES)


def test_one_that_loads_holds_up_nobody_else() -> None:
    slow = threading.Event()

    def load(name: str) -> Backend:
        assert name != "large" or slow.wait(10)
        return ScriptedBackend(Script((1,)), vocab=8)

    backends, loads = made(None, load)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(backends.get, "large") for _ in range(2)]
        first = backends.get("small")
        assert backends.get("small") is first
        slow.set()
        assert waiting[0].result() is waiting[1].result()
    assert loads.count("large") == 1


def test_one_that_did_not_load_is_not_tried_at_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("router.pool.time.monotonic", lambda: now)

    def load(_name: str) -> Backend:
        raise BackendError("its file is damaged")

    backends, loads = made(10, load)
    for _ in range(3):
        with pytest.raises(BackendError, match="damaged"):
            backends.get("small", again=False)
    assert loads == ["small"]
    with pytest.raises(BackendError, match="damaged"):
        backends.get("small")
    now = 61.0
    with pytest.raises(BackendError, match="damaged"):
        backends.get("small", again=False)
    assert loads == ["small"] * 3
