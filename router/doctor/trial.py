"""What came of trying one backend, told from what its process said and how it ended."""

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
    last_words: str = ""  # the last line that it or a library wrote


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
    def judge(cls, backend: str, told: Mapping[str, Any], ending: Ending, limit_seconds: float) -> Trial:
        """What the process ``told``, merged, and its end come to."""
        state, problem, advice = _verdict(told, ending, limit_seconds)
        return cls(
            backend,
            state,
            problem,
            advice,
            capability=_capability(told["capability"]) if "capability" in told else None,
            export_seconds=told.get("export_seconds"),
            load_seconds=told.get("load_seconds"),
            text=FirstToken(**told["text"]) if "text" in told else None,
            image=FirstToken(**told["image"]) if "image" in told else None,
            peak_bytes=told.get("peak_bytes"),
        )


def _capability(fields: Mapping[str, Any]) -> Capability:
    return Capability(**{**fields, "traits": Traits(**fields["traits"])})


def _verdict(
    told: Mapping[str, Any], ending: Ending, limit_seconds: float
) -> tuple[State, str | None, str | None]:
    stage = told.get("stage", "starting")
    if ending.code is None:
        why = f"stopped after {limit_seconds:g} s of {stage}"
        return "failed", why, f"--timeout {10 * limit_seconds:g} waits longer"
    if ending.code < 0:
        name = _signal(-ending.code)
        return "failed", f"ended by {name} while {stage}{_said(ending)}", _ADVICE.get(name, _CRASH)
    if "ended" not in told:
        return "failed", f"its process ended with code {ending.code} while {stage}{_said(ending)}", None
    if "error" in told:
        return "failed", f"failed while {stage}: {told['error']}", None
    if "refused" in told:
        return "unavailable", told["refused"].partition("cannot be used: ")[2] or told["refused"], None
    if "too_large" in told:
        return "too large", told["too_large"], "use a smaller model, or close other programs"
    problem = told["capability"]["problem"]
    if problem is not None:
        return "unavailable", problem, None
    return ("answers" if "text" in told else "not run"), None, None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _said(ending: Ending) -> str:
    return f" ({ending.last_words})" if ending.last_words else ""


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
        peaks = (self.told.get("peak_bytes"), peak_bytes(self._process))
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
