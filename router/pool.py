"""Backends in memory: loaded on first use; when it gets full, the one used least recently is let go."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

from backends.base import Backend, BackendError

RETRY_SECONDS = 60.0  # a backend that did not load is not tried again under "auto" for this long


class LoadedBackends:
    """At most ``budget`` bytes of backends, by what each ``needs``; safe to use from many threads.

    Whoever answers with a backend keeps it until it is done, also when it is let go here. One that takes more
    than the budget is loaded all the same, by itself.
    """

    def __init__(
        self, load: Callable[[str], Backend], needs: Callable[[str], int], budget: int | None
    ) -> None:
        self._load, self._needs, self._budget = load, needs, budget
        self._held: dict[str, Backend] = {}  # the one used last stands last
        self._failed: dict[str, tuple[float, BackendError]] = {}
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def get(self, name: str, *, again: bool = True) -> Backend:
        """The backend, loaded now if it is not in memory; other threads go on with theirs meanwhile.

        BackendError: it did not load; the same one for a while, unless ``again``.
        """
        with self._lock:
            own = self._loading.setdefault(name, threading.Lock())
        with own:
            if (held := self._used(name)) is not None:
                return held
            if not again:
                self._refuse_failed(name)
            self._make_room(name)
            try:
                loaded = self._load(name)
            except BackendError as error:
                self._failed[name] = time.monotonic(), error
                raise
            with self._lock:
                self._held[name] = loaded
            return loaded

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._held.clear()
        gc.collect()

    def _used(self, name: str) -> Backend | None:
        with self._lock:
            if name in self._held:
                self._held[name] = self._held.pop(name)
            return self._held.get(name)

    def _refuse_failed(self, name: str) -> None:
        at, error = self._failed.get(name, (0.0, None))
        if error is not None and time.monotonic() - at < RETRY_SECONDS:
            raise error

    def _make_room(self, name: str) -> None:
        if self._budget is None:
            return
        with self._lock:
            needs = {held: self._needs(held) for held in (*self._held, name)}
            gone = []
            while self._held and sum(needs.values()) > self._budget:
                oldest = next(iter(self._held))
                gone.append(self._held.pop(oldest))
                del needs[oldest]
        if gone:
            gone.clear()
            gc.collect()  # a model may stand in a circle of references
