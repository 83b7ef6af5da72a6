"""The line before the model: a bounded number of places, and turns in the order of arrival."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import ExitStack

from backends.base import RequestError

STUCK_SECONDS = 10.0  # after which a computation that was told to stop counts as hanging
_REMEMBERED = 20  # answers whose mean says when to come again


class Line:
    """``turns`` requests compute, ``waiting`` more may wait; the rest is told when to come again."""

    def __init__(self, turns: int, waiting: int) -> None:
        self.inside = 0
        self._turns = turns
        self._most = turns + waiting
        self._free = asyncio.Semaphore(turns)  # wakes in the order of arrival
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._stopping: dict[Place, float] = {}  # told to stop, and when

    def enter(self) -> Place:
        """A place. RequestError ``queue_full``: there is none."""
        if self.inside >= self._most:
            raise RequestError(
                f"{self.inside} requests are being answered or wait; come again later", code="queue_full"
            )
        self.inside += 1
        return Place(self)

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


class Place:
    """A request's place in the line, held until what was begun for it has ended."""

    def __init__(self, line: Line) -> None:
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
