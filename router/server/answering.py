"""One answer: prepared, given a turn, computed in a thread, handed over chunk by chunk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import closing
from typing import Any

from router.router import Answer
from router.server.cancel import Watch
from router.server.line import Place
from router.server.metrics import Meter
from router.server.threads import in_thread, tell
from router.types import Chunk

MOST_UNREAD = 1000  # chunks computed and not sent yet, about 256 KiB; then the computation waits


class Run:
    """Owns a place in the line, and leaves it when everything that was begun has ended."""

    def __init__(self, place: Place, watch: Watch, meter: Meter) -> None:
        self.place = place
        self._watch = watch
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Chunk | BaseException] = asyncio.Queue()
        self._room = threading.Semaphore(MOST_UNREAD)
        self._closed = threading.Event()
        self._answer: Answer | None = None
        self._task: asyncio.Task[None] | None = None  # that computes it
        self._computing = False
        self._whole = False  # all of it was handed over

    async def prepare(self, making: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer that ``making`` gives, unless the watch ends it before."""
        task = asyncio.create_task(making)
        try:
            self._answer = await self._watch.first(asyncio.shield(task))
        except BaseException:
            # a thread may still be at it: the place is held until it is done
            task.add_done_callback(self._abandoned)
            raise
        self._meter.prepared(self._answer)
        self._task = asyncio.create_task(self._compute(self._answer))
        self._task.add_done_callback(lambda _: self.place.leave())
        self._watch.stopped.add_done_callback(self._stopped)
        return self._answer

    async def chunks(self, ping: float | None = None) -> AsyncGenerator[Chunk | None, None]:
        """The chunks as they come; None after each ``ping`` seconds in which nothing came.

        Raises what the computation raised, or the reason for which the watch ended it.
        """
        while not self._whole:
            try:
                async with asyncio.timeout(ping):
                    event = await self._events.get()
            except TimeoutError:
                yield None
                continue
            if isinstance(event, BaseException):
                raise event
            self._room.release()
            self._meter.came(event)
            self._whole = event.finish is not None
            yield event

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Nobody reads any more: end what still goes on."""
        self._closed.set()
        self._watch.close()
        if self._task is not None:
            self._end(self._task)

    async def _compute(self, answer: Answer) -> None:
        await self.place.turn()
        self._computing = True
        self._meter.begins()
        await in_thread(lambda: self._iterate(answer))

    def _iterate(self, answer: Answer) -> None:
        """In a thread: the chunks, and what goes wrong, go to the event loop."""
        try:
            with closing(answer.chunks):
                for chunk in answer.chunks:
                    while not self._room.acquire(timeout=0.1):
                        if self._closed.is_set():
                            return
                    tell(self._loop, self._events.put_nowait, chunk)
        except BaseException as failure:
            tell(self._loop, self._events.put_nowait, failure)

    def _stopped(self, reason: asyncio.Future[Exception]) -> None:
        if not reason.cancelled():
            self._events.put_nowait(reason.result())

    def _end(self, task: asyncio.Task[None]) -> None:
        if task.done() or self._whole:
            return
        if not self._computing:
            task.cancel()
            return
        assert self._answer is not None
        self.place.stopping()
        # closing a session may wait for the library, which must not hold the loop
        threading.Thread(target=self._answer.cancel, daemon=True).start()

    def _abandoned(self, task: asyncio.Task[Answer]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().chunks.close()
        self.place.leave()
