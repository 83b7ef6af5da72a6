"""What came of trying one backend, told from what its process said and how it ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from backends.base import Capability

State: TypeAlias = Literal["answers", "not run", "unavailable", "too large", "failed"]

_ADVICE = {
    "SIGILL": "the processor lacks an instruction that a library uses: install another version of it",
    "SIGKILL": "the system ends what takes too much memory: use a smaller model, or close other programs",
}
_CRASH = "a native library crashed: install its newest version, and report it there if that crashes too"


@dataclass(frozen=True)
class FirstToken:
    """The likeliest first token of an answer."""

    seconds: float  # from the prompt, the picture's encoding included
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
    picture: FirstToken | None = None
    peak_bytes: int | None = None  # most memory that its process had

    @property
    def can_answer(self) -> bool:
        """Whether it answered a text, or could be asked to."""
        return self.text is not None or self.state == "not run"

    @classmethod
    def judge(cls, backend: str, told: Mapping[str, Any], ending: Ending, limit_seconds: float) -> Trial:
        """What the process ``told``, merged, and its end come to."""
        state, problem, advice = _verdict(told, ending, limit_seconds)
        return cls(
            backend,
            state,
            problem,
            advice,
            capability=Capability(**told["capability"]) if "capability" in told else None,
            export_seconds=told.get("export_seconds"),
            load_seconds=told.get("load_seconds"),
            text=FirstToken(**told["text"]) if "text" in told else None,
            picture=FirstToken(**told["picture"]) if "picture" in told else None,
            peak_bytes=told.get("peak_bytes"),
        )


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
