"""What is let in: so many requests, and so many bytes of their bodies, one by one and all together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
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

    def __init__(self, turns: int, waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._turns = turns
        self._most = turns + waiting
        self._clock = clock
        self._free = asyncio.Semaphore(turns)  # wakes in the order of arrival
        self._slots: set[Slot] = set()
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def inside(self) -> int:
        """How many requests compute or wait."""
        return len(self._slots)

    def enter(self) -> Slot:
        """A slot. RequestError ``queue_full``: there is none."""
        if self.inside >= self._most:
            raise RequestError(
                f"{self.inside} requests are being answered or wait; come again later", code="queue_full"
            )
        slot = Slot(self, self._clock)
        self._slots.add(slot)
        return slot

    async def take_turn(self) -> None:
        """Wait until a request may compute; see ``give_turn_back``."""
        await self._free.acquire()

    def give_turn_back(self) -> None:
        """Let the next one compute."""
        self._free.release()

    def remove(self, slot: Slot) -> None:
        """The slot is free; how long its answer took counts, unless it was told to stop."""
        self._slots.remove(slot)
        if slot.turn_began is not None and slot.stop_began is None:
            self._seconds.append(self._clock() - slot.turn_began)

    @property
    def retry_after(self) -> int:
        """Whole seconds, 1 to 60, after which a slot is likely to be free."""
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        return max(1, min(60, math.ceil(round(mean / self._turns, 2))))

    @property
    def stuck(self) -> bool:
        """Whether a computation goes on though it was told to stop long ago."""
        began = [slot.stop_began for slot in self._slots if slot.stop_began is not None]
        return any(self._clock() - since > STUCK_SECONDS for since in began)


class Slot:
    """A request's place in the queue, held until what was begun for it has ended."""

    def __init__(self, queue: Queue, clock: Callable[[], float]) -> None:
        self.on_leave = ExitStack()  # gives back what is held with the slot
        self.turn_began: float | None = None
        self.stop_began: float | None = None
        self._queue = queue
        self._clock = clock

    @property
    def others(self) -> int:
        """How many compute or wait besides this one."""
        return self._queue.inside - 1

    async def wait_for_turn(self) -> None:
        """Wait until this request may compute."""
        await self._queue.take_turn()
        self.on_leave.callback(self._queue.give_turn_back)
        self.turn_began = self._clock()

    def mark_stopping(self) -> None:
        """The computation was told to stop."""
        self.stop_began = self._clock()

    def leave(self) -> None:
        """Let the next one in; once for each slot."""
        self._queue.remove(self)
        self.on_leave.close()


SMALL = 64 * 1024  # what a connection buffers anyway; only what a body has beyond this is counted


class BodyBudget:
    """Counts the bytes that all bodies together hold."""

    def __init__(self, most_each: int, most_together: int) -> None:
        self.held_bytes = 0
        self.most_each = most_each
        self._most_together = most_together

    @contextmanager
    def hold(self) -> Iterator[BodyReader]:
        """A body that is counted until the context ends."""
        body = BodyReader(self)
        try:
            yield body
        finally:
            self.held_bytes -= body.counted

    def take(self, size: int) -> None:
        """Count so many bytes more. RequestError ``queue_full``: they are too many."""
        if size and self.held_bytes + size > self._most_together:
            raise RequestError(
                "too many large bodies are being read at once; come again later", code="queue_full"
            )
        self.held_bytes += size


class BodyReader:
    """One body, counted as it grows."""

    def __init__(self, budget: BodyBudget) -> None:
        self.counted = 0  # bytes
        self._budget = budget

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body.

        RequestError ``unsupported_media_type``, ``body_too_large``, or ``queue_full``: all bodies together
        are too large. ClientLeftError: it never came to its end.
        """
        _check_type(headers.get("content-type", ""))
        length = headers.get("content-length", "")
        self._check_size(int(length) if length.isdecimal() else 0)
        data = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            data += message.get("body", b"")
            self._check_size(len(data))
            self._count(len(data))
            more = message.get("more_body", False)
        return bytes(data)

    def _check_size(self, size: int) -> None:
        most = self._budget.most_each
        if size > most:
            raise RequestError(
                f"the body is larger than {most // MIB} MiB, the most that is read; send smaller images",
                code="body_too_large",
            )

    def _count(self, size: int) -> None:
        more = max(0, size - SMALL) - self.counted
        self._budget.take(more)
        self.counted += more


def _check_type(content_type: str) -> None:
    kind, _, parameter = content_type.partition(";")
    name, _, charset = parameter.strip().partition("=")
    is_json = kind.strip().lower() == "application/json"
    if not is_json or (name.lower() == "charset" and charset.strip('" ').lower() not in ("utf-8", "utf8")):
        raise RequestError(
            "the body must be JSON in UTF-8, and its content-type application/json",
            code="unsupported_media_type",
        )
