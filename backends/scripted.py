"""The "scripted" backend: plays given tokens, slowly or wrongly if told to; it reads no weights.

It drives the loop, the command line and servers in tests and demonstrations. From the command line it takes
its script from the environment, as JSON with the fields of ``Script``::

    HYBRID_SCRIPT='{"tokens": [40, 41, 2], "delay": 0.1}' hybrid generate --backend scripted "Hello"
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from backends.base import BackendError, Logits, Prefilled, Prompt, Runtime, Traits
from backends.qwen3vl import Config

Fault: TypeAlias = Literal["raise", "nan", "hang"]

VARIABLE = "HYBRID_SCRIPT"


@dataclass(frozen=True)
class Script:
    """The tokens to play, seconds before each, and what goes wrong in place of token number ``fault_at``."""

    tokens: tuple[int, ...]
    delay: float = 0.0
    fault: Fault | None = None
    fault_at: int = 0

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ValueError("a script needs at least one token")

    @classmethod
    def parse(cls, text: str) -> Script:
        """A script from JSON; BackendError names what cannot be read."""
        try:
            fields = json.loads(text)
            return cls(**{**fields, "tokens": tuple(map(int, fields["tokens"]))})
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(f'{VARIABLE} is not a script ({error}); write {{"tokens": [1, 2]}}') from None


class ScriptedBackend:
    """Plays one script to every session."""

    name = "scripted"
    traits = Traits(sees_images=True, for_tests=True)
    device, dtype = "cpu", ""

    def __init__(self, script: Script, vocab: int, context: int = 4096) -> None:
        self.script = script
        self.vocab = vocab
        self.context = context
        self.sessions: set[ScriptedSession] = set()  # those that are open

    @property
    def open_sessions(self) -> int:
        """How many sessions were opened and not closed yet."""
        return len(self.sessions)

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> ScriptedBackend:
        """The script in HYBRID_SCRIPT, with the vocabulary and context of the model in ``folder``."""
        if VARIABLE not in os.environ:
            raise BackendError(f"backend 'scripted' plays the tokens in {VARIABLE}, which is not set")
        config = Config.read(folder)
        return cls(Script.parse(os.environ[VARIABLE]), config.text.vocab, config.text.context)

    def open(self, capacity: int) -> ScriptedSession:
        """Start at the first token of the script."""
        session = ScriptedSession(self)
        self.sessions.add(session)
        return session


class ScriptedSession:
    """One reading of the script."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self.backend = backend
        self.played = 0
        self.closed = threading.Event()

    def prefill(self, prompt: Prompt) -> Prefilled:
        """The first token of the script, whatever the prompt."""
        return Prefilled(self._play())

    def decode(self, token: int) -> Logits:
        """The next token of the script, whatever was picked."""
        return self._play()

    def close(self) -> None:
        """Tell the backend that this session ended; a delay or a hang in another thread ends."""
        self.closed.set()
        self.backend.sessions.discard(self)

    def _play(self) -> Logits:
        script, at = self.backend.script, self.played
        self.played += 1
        self._wait(script.delay)
        logits = np.full(self.backend.vocab, -10.0, np.float32)
        logits[script.tokens[min(at, len(script.tokens) - 1)]] = 10.0
        if script.fault is not None and at == script.fault_at:
            self._fail(script.fault, logits)
        return logits

    def _fail(self, fault: Fault, logits: Logits) -> None:
        match fault:
            case "raise":
                raise BackendError("the script says to fail here")
            case "nan":
                logits[0] = np.nan
            case "hang":
                self._wait(3600)

    def _wait(self, seconds: float) -> None:
        if self.closed.wait(seconds) if seconds else self.closed.is_set():
            raise BackendError("the session was closed", code="cancelled")
