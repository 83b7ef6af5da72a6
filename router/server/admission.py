"""Bodies of requests: bounded one by one and all together, and JSON by their own account."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from starlette.datastructures import Headers
from starlette.types import Receive

from backends.base import RequestError
from router.server.cancel import ClientLeftError
from router.server.settings import MIB

STUCK_SECONDS = 10.0  # after which a computation that was told to stop counts as hanging
_REMEMBERED = 20  # answers whose mean says when to come again


class Queue:
    """``turns`` requests compute, ``waiting`` more may wait; the rest is told when to come again."""

    def __init__(self, turns: int, waiting: int) -> None:
        self.inside = 0
        self._turns = turns
        self._most = turns + waiting
        self._free = asyncio.Semaphore(turns)  # wakes in the order of arrival
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._stopping: dict[Slot, float] = {}  # told to stop, and when

    def enter(self) -> Slot:
        """A place. RequestError ``queue_full``: there is none."""
        if self.inside >= self._most:
            raise RequestError(
                f"{self.inside} requests are being answered or wait; come again later", code="queue_full"
            )
        self.inside += 1
        return Slot(self)

    @property
    def retry_after(self) -> int:
        """Whole seconds, 1 to 60, after which a place is likely to be free."""
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        return max(1, min(60, math.ceil(round(mean / self._turns, 2))))

    @property
    def stuck(self) -> bool:
        """Whether a computation goes on though it was told to stop long ago."""
        now = asyncio.get_running_loop().time()
        return any(now - since > STUCK_SECONDS for since in self._stopping.values())


class Slot:
    """A request's place in the line, held until what was begun for it has ended."""

    def __init__(self, line: Queue) -> None:
        self.ends = ExitStack()  # of what is to be given back with the place
        self._line = line
        self._since: float | None = None  # when its turn began

    @property
    def others(self) -> int:
        """How many are being answered or wait besides this one."""
        return self._line.inside - 1

    async def turn(self) -> None:
        """Wait for a turn to compute."""
        await self._line._free.acquire()
        self.ends.callback(self._line._free.release)
        self._since = asyncio.get_running_loop().time()

    def stopping(self) -> None:
        """The computation was told to stop."""
        self._line._stopping[self] = asyncio.get_running_loop().time()

    def leave(self) -> None:
        """Let the next one in; once for each place."""
        line = self._line
        line.inside -= 1
        if self._since is not None and self not in line._stopping:
            line._seconds.append(asyncio.get_running_loop().time() - self._since)
        line._stopping.pop(self, None)
        self.ends.close()


SMALL = 64 * 1024  # what a connection buffers anyway; only what a body has beyond this is counted


class BodyBudget:
    """Counts what all bodies together hold."""

    def __init__(self, most_each: int, most_together: int) -> None:
        self.held = 0
        self._most_each = most_each
        self._most_together = most_together

    @contextmanager
    def hold(self) -> Iterator[BodyReader]:
        """A body that is counted until the context ends."""
        body = BodyReader(self)
        try:
            yield body
        finally:
            self.held -= body.counted


class BodyReader:
    """One body, counted as it grows."""

    def __init__(self, bodies: BodyBudget) -> None:
        self.counted = 0
        self._bodies = bodies

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body.

        RequestError ``unsupported_media_type``, ``body_too_large``, or ``queue_full``: all bodies together
        are too large. ClientLeftError: it never came to its end.
        """
        _check_type(headers.get("content-type", ""))
        length = headers.get("content-length", "")
        self._check(int(length) if length.isdecimal() else 0)
        data = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            data += message.get("body", b"")
            self._check(len(data))
            self._count(len(data))
            more = message.get("more_body", False)
        return bytes(data)

    def _check(self, size: int) -> None:
        most = self._bodies._most_each
        if size > most:
            raise RequestError(
                f"the body is larger than {most // MIB} MiB, the most that is read; send smaller images",
                code="body_too_large",
            )

    def _count(self, size: int) -> None:
        more = max(0, size - SMALL) - self.counted
        if more and self._bodies.held + more > self._bodies._most_together:
            raise RequestError(
                "too many large bodies are being read at once; come again later", code="queue_full"
            )
        self.counted += more
        self._bodies.held += more


def _check_type(said: str) -> None:
    kind, _, more = said.partition(";")
    name, _, charset = more.strip().partition("=")
    right = kind.strip().lower() == "application/json"
    if not right or (name.lower() == "charset" and charset.strip('" ').lower() not in ("utf-8", "utf8")):
        raise RequestError(
            "the body must be JSON in UTF-8, and its content-type application/json",
            code="unsupported_media_type",
        )
