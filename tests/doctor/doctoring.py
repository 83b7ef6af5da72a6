"""What the tests of ``hybrid doctor`` share: backends that go wrong, tried one at a time."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import backends
from backends import Runtime
from router.doctor import Trial, trial
from router.models import find
from tests import broken_backends, stand_in

PREPROCESSOR = "preprocessor_config.json"
LONG = 600.0  # seconds; nothing here waits for them


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """Makes backends of `tests.broken_backends` known, and the only ones that are tried."""

    def prepare(*names: str, beside: tuple[str, ...] = ()) -> None:
        place = tmp_path / "installed"
        place.mkdir()
        broken_backends.install(place, *names)
        monkeypatch.syspath_prepend(place)
        backends.plugins.cache_clear()
        monkeypatch.setattr(backends, "names", lambda: (*names, *beside))

    yield prepare
    backends.plugins.cache_clear()


def tried(name: str, **settings) -> Trial:
    settings = {"run": True, "limit_seconds": LONG, "on_stage": lambda _stage: None} | settings
    return trial.attempt(name, find(), Runtime(), **settings)


def stand_in_for_scenes() -> Path:
    """A folder in the cache that passes for an export of the embedded model."""
    folder: Path = stand_in.ensure(find())
    (folder / PREPROCESSOR).write_bytes((find().folder / PREPROCESSOR).read_bytes())
    return folder


def with_script(monkeypatch: pytest.MonkeyPatch, **script: object) -> None:
    monkeypatch.setenv("HYBRID_SCRIPT", json.dumps({"tokens": [40]} | script))


def wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status
