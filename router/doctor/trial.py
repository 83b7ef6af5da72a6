"""Tries each backend in a process of its own, and watches it: a crash or a hang there is a finding here.

`Trial.judge` tells what came of it from the results that the process wrote (see `router.doctor.probe`) and
from how it ended: stopped after too long at one stage, by a signal, by an exit before its last line, or well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from backends.base import Capability, Runtime, Traits
from backends.machine import peak_bytes
from router.doctor.probe import EXPORTING, Order
from router.models import Model

State: TypeAlias = Literal["answers", "not run", "unavailable", "too large", "failed"]

_ADVICE = {
    "SIGILL": "the processor lacks an instruction that a library uses: install another version of it",
    "SIGKILL": "the system ends what takes too much memory: use a smaller model, or close other programs",
}
_CRASH = "a native library crashed: install its newest version, and report it there if that crashes too"


@dataclass(frozen=True)
class FirstToken:
    """The likeliest first token of an answer."""

    seconds: float  # from the prompt, the image's encoding included
    id: int
    text: str


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    code: int | None  # below 0: minus the signal; None: it was stopped, since it took too long
    last_line: str = ""  # of what it or a library printed


@dataclass(frozen=True)
class Trial:
    """One backend: whether it can be used, and what a load and a token took."""

    backend: str
    state: State
    problem: str | None = None
    advice: str | None = None
    capability: Capability | None = None  # None: its process ended before that was known
    export_seconds: float | None = None  # making the export, or looking whether it is whole
    load_seconds: float | None = None
    text: FirstToken | None = None
    image: FirstToken | None = None
    peak_bytes: int | None = None  # most memory that its process had

    @property
    def can_answer(self) -> bool:
        """Whether it answered a text, or could be asked to."""
        return self.text is not None or self.state == "not run"

    @property
    def for_tests(self) -> bool:
        """Whether the backend computes nothing."""
        return self.capability is not None and self.capability.traits.for_tests

    @classmethod
    def judge(cls, backend: str, results: Mapping[str, Any], ending: Ending, limit_seconds: float) -> Trial:
        """What the ``results`` that the process wrote, merged, and its end come to."""
        state, problem, advice = _verdict(results, ending, limit_seconds)
        return cls(
            backend,
            state,
            problem,
            advice,
            capability=_capability(results["capability"]) if "capability" in results else None,
            export_seconds=results.get("export_seconds"),
            load_seconds=results.get("load_seconds"),
            text=FirstToken(**results["text"]) if "text" in results else None,
            image=FirstToken(**results["image"]) if "image" in results else None,
            peak_bytes=results.get("peak_bytes"),
        )


def _capability(fields: Mapping[str, Any]) -> Capability:
    return Capability(**{**fields, "traits": Traits(**fields["traits"])})


def _verdict(
    results: Mapping[str, Any], ending: Ending, limit_seconds: float
) -> tuple[State, str | None, str | None]:
    stage = results.get("stage", "starting")
    if ending.code is None:
        problem = f"stopped after {limit_seconds:g} s of {stage}"
        return "failed", problem, f"--timeout {10 * limit_seconds:g} waits longer"
    if ending.code < 0:
        name = _signal(-ending.code)
        return "failed", f"ended by {name} while {stage}{_quoted(ending)}", _ADVICE.get(name, _CRASH)
    if "ended" not in results:
        return "failed", f"its process ended with code {ending.code} while {stage}{_quoted(ending)}", None
    if "error" in results:
        return "failed", f"failed while {stage}: {results['error']}", None
    if "refused" in results:
        return "unavailable", results["refused"].partition("cannot be used: ")[2] or results["refused"], None
    if "too_large" in results:
        return "too large", results["too_large"], "use a smaller model, or close other programs"
    problem = results["capability"]["problem"]
    if problem is not None:
        return "unavailable", problem, None
    return ("answers" if "text" in results else "not run"), None, None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _quoted(ending: Ending) -> str:
    return f" ({ending.last_line})" if ending.last_line else ""


_CODE = "from router.doctor.probe import main; main()"
_POLL_SECONDS = 0.05
_LONGEST_LINE = 200  # characters


def attempt(
    backend: str,
    model: Model,
    runtime: Runtime,
    *,
    run: bool,
    limit_seconds: float,
    on_stage: Callable[[str], None],
) -> Trial:
    """Find out whether ``backend`` can be used, and with ``run`` load ``model`` and take a token from it.

    Each stage but exporting may take ``limit_seconds``; ``on_stage`` is called with each that begins.
    """
    with tempfile.TemporaryDirectory(prefix="hybrid-doctor-") as folder:
        results = Path(folder, "results")
        results.touch()
        order = Order(backend, model, runtime, run, results)
        with results.open("rb") as stream, Path(folder, "output").open("w+b") as output:
            process = _start(order, output)
            watch = _Watch(process.pid, stream, limit_seconds, lambda stage: on_stage(f"{backend}: {stage}"))
            try:
                code = _wait(process, watch)
            finally:
                _end(process)
            return Trial.judge(backend, watch.results, Ending(code, _last_line(output)), limit_seconds)


def _start(order: Order, output: IO[bytes]) -> subprocess.Popen[bytes]:
    # what this process can import that one can too; -P: and nothing from the folder it happens to stand in
    folders = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _CODE, order.as_json()],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, "PYTHONPATH": folders},
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
        watch.poll()
        if watch.is_late:
            return None
        time.sleep(_POLL_SECONDS)
    watch.poll()
    return code


class _Watch:
    """What a process has written so far, and how long it has been at its stage."""

    def __init__(
        self, process: int, stream: IO[bytes], limit_seconds: float, on_stage: Callable[[str], None]
    ) -> None:
        self.results: dict[str, Any] = {}
        self._process = process
        self._stream = stream
        self._limit_seconds = limit_seconds
        self._on_stage = on_stage
        self._partial_line = b""
        self._enter()

    @property
    def is_late(self) -> bool:
        """Whether the stage takes longer than it may."""
        limited = self.results.get("stage") != EXPORTING
        return limited and time.monotonic() - self._since > self._limit_seconds

    def poll(self) -> None:
        """Read what was written since the last time."""
        *lines, self._partial_line = (self._partial_line + self._stream.read()).split(b"\n")
        for line in lines:
            result = json.loads(line)
            self.results |= result
            if "stage" in result or "percent" in result:
                self._enter()
        peaks = (self.results.get("peak_bytes"), peak_bytes(self._process))
        self.results["peak_bytes"] = max((peak for peak in peaks if peak is not None), default=None)

    def _enter(self) -> None:
        self._since = time.monotonic()
        stage = self.results.get("stage", "starting")
        done = f", {self.results['percent']} %" if stage == EXPORTING and "percent" in self.results else ""
        self._on_stage(stage + done)


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").split("\n")
    printed = [line.strip() for line in lines if line.strip()]
    return printed[-1][:_LONGEST_LINE] if printed else ""


LIMIT_SECONDS = 120.0  # for each of loading and answering
