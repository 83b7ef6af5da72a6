"""Whether the service can answer: while its model loads, while it ends, and when a backend hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from backends.base import BackendError, Capability
from router.server.cancel import Watch

Phase: TypeAlias = Literal["loading", "ready", "draining"]

_SAID: dict[Phase, str] = {
    "loading": "the model is being loaded; come again in a moment",
    "draining": "the server is about to end; come again in a moment",
}


class State:
    """The phase, and the requests that are under way in it."""

    def __init__(self, hangs: Callable[[], bool]) -> None:
        """``hangs``: whether a computation goes on that was told to stop."""
        self.phase: Phase = "loading"
        self.failure: BaseException | None = None  # why the model did not load
        self.usable: Mapping[str, Capability] = {}  # backends, known once it is loaded
        self.since = int(time.time())
        self.watches: set[Watch] = set()
        self._hangs = hangs

    @property
    def problem(self) -> str | None:
        """Why requests are not answered, in few words; None when they are."""
        if self.phase == "loading":
            return "Loading model"  # word for word what clients of llama.cpp look for
        if self.phase == "draining":
            return "Shutting down"
        return "A backend does not answer" if self._hangs() else None

    def check(self) -> None:
        """BackendError ``loading`` or ``draining``: no request can be taken now."""
        if self.phase != "ready":
            raise BackendError(_SAID[self.phase], code=self.phase)

    def drain(self) -> None:
        """Take no more requests."""
        self.phase = "draining"

    def cut(self) -> None:
        """End every request that is still under way."""
        for watch in tuple(self.watches):
            watch.stop(BackendError(_SAID["draining"], code="draining"))
