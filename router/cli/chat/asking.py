"""One question being answered in the thread that computes; it can be stopped from another at any time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

from router.router import Answer, Router
from router.types import Chunk, Request


class Asking:
    """The chunks of an answer, and the way to end them.

    Stopping takes effect when the library that computes lets go, so a new question waits for the end of the
    one before: two would share the cores and hold two caches.
    """

    def __init__(self, router: Router, request: Request, before: threading.Event | None) -> None:
        """``before``: set when the question asked before this one has ended."""
        self.answer: Answer | None = None
        self.ended = threading.Event()
        self._router = router
        self._request = request
        self._before = before
        self._stopped = threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        """An empty chunk once ``answer`` is known, then those of the answer. Errors as from Router.answer."""
        try:
            if self._before is not None:
                self._before.wait()
            self.answer = answer = self._router.answer(self._request)
            with closing(answer.chunks) as chunks:
                yield Chunk("")
                if not self._stopped.is_set():
                    yield from chunks
        finally:
            self.ended.set()

    def stop(self) -> None:
        """End it soon; nothing that it still brings is of interest."""
        self._stopped.set()
        # one of the two sees the other: the answer is set before the flag is read, the flag before the answer
        if self.answer is not None:
            self.answer.cancel()
