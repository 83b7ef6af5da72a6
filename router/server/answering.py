"""One answer: prepared, given a turn, computed in a thread, handed over chunk by chunk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import closing
from typing import Any

from backends.base import RequestError
from router.api import ParsedRequest
from router.api.request import ImageSource
from router.images import read_image
from router.router import Answer, Router
from router.server.admission import Slot
from router.server.cancel import CancelScope, in_thread, tell
from router.server.metrics import RequestMetrics
from router.server.settings import Settings
from router.types import Chunk, Picture, Request, Route

# Of waiting for others before it is decided who answers a request that came alone: those that come at once
# are to be decoded together from the first on
GATHER_SECONDS = 0.03
Fetched = Mapping[ImageSource, bytes]  # images that came from elsewhere


class Preprocessor:
    """One request at a time, and none while those that wait for a turn hold too much memory."""

    def __init__(self, router: Router, settings: Settings) -> None:
        self.held = 0  # bytes of prepared images
        self._router = router
        self._settings = settings
        self._one = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()

    async def answer(self, ask: ParsedRequest, backend: str | None, fetched: Fetched, place: Slot) -> Answer:
        """See ``Router.answer``; what it holds is counted until ``place`` is left."""
        async with self._one:
            await self._room.wait()
            # of others depends who answers a text, and nothing else
            is_open = backend is None and not ask.sources
            if is_open and not place.others and self._settings.max_concurrency > 1:
                await asyncio.sleep(GATHER_SECONDS)
            others = place.others
            answer = await in_thread(
                lambda: self._router.answer(self._request(ask, backend, fetched), others)
            )
        patches = answer.prompt.patches
        self._count(size := 0 if patches is None else patches.nbytes)
        place.ends.callback(self._count, -size)
        return answer

    async def route(self, ask: ParsedRequest, backend: str | None, fetched: Fetched, others: int) -> Route:
        """See ``Router.route``."""
        async with self._one:
            return await in_thread(lambda: self._router.route(self._request(ask, backend, fetched), others))

    def _request(self, ask: ParsedRequest, backend: str | None, fetched: Fetched) -> Request:
        limits = self._settings.images

        def read(source: ImageSource) -> Picture:
            data = fetched[source] if source in fetched else source.decoded(limits.max_bytes)
            try:
                return read_image(data, limits)
            except RequestError as error:
                raise RequestError(str(error), code=error.code, param=source.param) from None

        return ask.request(read, backend)

    def _count(self, size: int) -> None:
        self.held += size
        if self.held <= self._settings.max_prepared:
            self._room.set()
        else:
            self._room.clear()


MOST_UNREAD = 1000  # chunks computed and not sent yet, about 256 KiB; then the computation waits


class Generation:
    """Owns a place in the line, and leaves it when everything that was begun has ended."""

    def __init__(self, place: Slot, watch: CancelScope, meter: RequestMetrics) -> None:
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
