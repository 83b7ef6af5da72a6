"""Backends of another package that go wrong, each in its own way; `install` makes them known."""

import os
import signal
import sys
import time
from pathlib import Path

from backends import BackendError, Runtime, Traits
from backends.base import Backend
from backends.scripted import Script, ScriptedBackend

TAKEN = 200_000_000  # bytes

_METADATA = "Metadata-Version: 2.1\nName: broken-backends\nVersion: 1\n"


def install(folder: Path, *names: str) -> None:
    """Write into ``folder``, which is on the module path, that there are backends of these names."""
    info = folder / "broken_backends-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(_METADATA)
    points = [f"{name} = tests.broken_backends:{name.capitalize()}" for name in names]
    (info / "entry_points.txt").write_text("\n".join(["[hybrid.backends]", *points]))


class Fine(ScriptedBackend):
    """Nothing is wrong with it; it reads text only."""

    traits = Traits(sees_images=False)

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        return cls(Script((40,)), vocab=1024)


class Mine(Fine):
    """Fine, and known to whoever registers it."""

    name = "mine"


class Crash(Fine):
    """Its native code reads where nothing is."""

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        print("about to read address 0", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError


class Leave(Fine):
    """A library that ends the process, and calls it a success."""

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        sys.exit(0)


class Bug(Fine):
    """Raises what no backend may, having taken much memory."""

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        taken = b"x" * TAKEN
        raise KeyError(f"{len(taken)} bytes")


class Poor(Fine):
    """Fails as a backend may."""

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        raise BackendError("the graph has no output; export the model again", code="model_invalid")


class Sleep(Fine):
    """Never comes back from loading; tells its process's number first."""

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        Path(os.environ["SLEEPER"]).write_text(str(os.getpid()))
        time.sleep(3600)
        raise AssertionError


class Fat(Fine):
    """Crashes with much memory taken, once somebody has seen that it is."""

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        taken = b"x" * TAKEN
        while taken and not Path(os.environ["SEEN"]).exists():
            time.sleep(0.02)
        os.abort()
