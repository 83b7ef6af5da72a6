"""Tries each backend in a process of its own, and watches it: a crash or a hang there is a finding here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from backends.base import Runtime
from router.doctor.probe import EXPORTING, Order, peak_memory
from router.doctor.trial import Ending, Trial
from router.models import Model

_CODE = "from router.doctor.probe import main; main()"
_LOOK_SECONDS = 0.05
_LONGEST_WORDS = 200  # characters


def attempt(
    backend: str,
    model: Model,
    runtime: Runtime,
    *,
    run: bool,
    limit_seconds: float,
    tell: Callable[[str], None],
) -> Trial:
    """Find out whether ``backend`` can be used, and with ``run`` load ``model`` and take a token from it.

    Each stage but exporting may take ``limit_seconds``; ``tell`` is told which one it is.
    """
    with tempfile.TemporaryDirectory(prefix="hybrid-doctor-") as folder:
        told = Path(folder, "told")
        told.touch()
        order = Order(backend, model, runtime, run, told)
        with told.open("rb") as stream, Path(folder, "output").open("w+b") as output:
            process = _start(order, output)
            watch = _Watch(process.pid, stream, limit_seconds, lambda stage: tell(f"{backend}: {stage}"))
            try:
                code = _wait(process, watch)
            finally:
                _end(process)
            return Trial.judge(backend, watch.told, Ending(code, _last_line(output)), limit_seconds)


def _start(order: Order, output: IO[bytes]) -> subprocess.Popen[bytes]:
    # what this process can import that one can too; -P: and nothing from the folder it happens to stand in
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _CODE, order.as_json()],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, "PYTHONPATH": places},
        start_new_session=True,  # Ctrl-C is for this process, which ends that one
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it may have started."""
    with suppress(ProcessLookupError):  # all of them are gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen[bytes], watch: _Watch) -> int | None:
    """The exit code; None when a stage took too long."""
    while (code := process.poll()) is None:
        watch.look()
        if watch.is_late:
            return None
        time.sleep(_LOOK_SECONDS)
    watch.look()
    return code


class _Watch:
    """What a process has told so far, and how long it has been at its stage."""

    def __init__(
        self, process: int, stream: IO[bytes], limit_seconds: float, on_stage: Callable[[str], None]
    ) -> None:
        self.told: dict[str, Any] = {}
        self._process = process
        self._stream = stream
        self._limit_seconds = limit_seconds
        self._on_stage = on_stage
        self._rest = b""
        self._enter()

    @property
    def is_late(self) -> bool:
        """Whether the stage takes longer than it may."""
        limited = self.told.get("stage") != EXPORTING
        return limited and time.monotonic() - self._since > self._limit_seconds

    def look(self) -> None:
        """Read what was told since the last look."""
        *lines, self._rest = (self._rest + self._stream.read()).split(b"\n")
        for line in lines:
            news = json.loads(line)
            self.told |= news
            if "stage" in news or "percent" in news:
                self._enter()
        peaks = (self.told.get("peak_bytes"), peak_memory(self._process))
        self.told["peak_bytes"] = max((peak for peak in peaks if peak is not None), default=None)

    def _enter(self) -> None:
        self._since = time.monotonic()
        stage = self.told.get("stage", "starting")
        done = f", {self.told['percent']} %" if stage == EXPORTING and "percent" in self.told else ""
        self._on_stage(stage + done)


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:_LONGEST_WORDS] if said else ""
