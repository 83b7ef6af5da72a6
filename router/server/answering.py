"""One answer: prepared, given a turn, computed in a thread, handed over chunk by chunk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import closing
from typing import Any

from backends.base import RequestError
from router.api.messages import ImageSource
from router.api.request import ParsedRequest
from router.images import read_image
from router.router import Answer, Router
from router.server.admission import Slot
from router.server.cancel import CancelScope, call_in_loop, in_thread
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
        self.held_bytes = 0  # of prepared images
        self._router = router
        self._settings = settings
        self._lock = asyncio.Lock()
        self._has_memory = asyncio.Event()
        self._has_memory.set()

    async def answer(
        self, parsed: ParsedRequest, backend: str | None, fetched: Fetched, slot: Slot
    ) -> Answer:
        """See ``Router.answer``; what it holds is counted until ``slot`` is left."""
        async with self._lock:
            await self._has_memory.wait()
            # of others depends who answers a text, and nothing else
            is_open = backend is None and not parsed.sources
            if is_open and not slot.others and self._settings.max_concurrency > 1:
                await asyncio.sleep(GATHER_SECONDS)
            others = slot.others
            answer = await in_thread(
                lambda: self._router.answer(self._request(parsed, backend, fetched), others)
            )
        patches = answer.prompt.patches
        self._count(size := 0 if patches is None else patches.nbytes)
        slot.on_leave.callback(self._count, -size)
        return answer

    async def route(self, parsed: ParsedRequest, backend: str | None, fetched: Fetched, others: int) -> Route:
        """See ``Router.route``."""
        async with self._lock:
            return await in_thread(
                lambda: self._router.route(self._request(parsed, backend, fetched), others)
            )

    def _request(self, parsed: ParsedRequest, backend: str | None, fetched: Fetched) -> Request:
        limits = self._settings.images

        def read(source: ImageSource) -> Picture:
            data = fetched[source] if source in fetched else source.decoded(limits.max_bytes)
            try:
                return read_image(data, limits)
            except RequestError as error:
                raise RequestError(str(error), code=error.code, param=source.param) from None

        return parsed.request(read, backend)

    def _count(self, size: int) -> None:
        self.held_bytes += size
        if self.held_bytes <= self._settings.max_prepared:
            self._has_memory.set()
        else:
            self._has_memory.clear()


MOST_UNREAD = 1000  # chunks computed and not sent yet, about 256 KiB; then the computation waits


class Generation:
    """Owns a slot in the queue, and leaves it when everything that was begun has ended."""

    def __init__(self, slot: Slot, cancel_scope: CancelScope, metrics: RequestMetrics) -> None:
        self.slot = slot
        self._cancel_scope = cancel_scope
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Chunk | BaseException] = asyncio.Queue()
        self._unread = threading.Semaphore(MOST_UNREAD)
        self._closed = threading.Event()
        self._answer: Answer | None = None
        self._task: asyncio.Task[None] | None = None  # that computes it
        self._computing = False
        self._handed_over = False  # all of it was handed over

    async def prepare(self, preparation: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer that ``preparation`` gives, unless the request is cancelled before."""
        task = asyncio.create_task(preparation)
        try:
            self._answer = await self._cancel_scope.first(asyncio.shield(task))
        except BaseException:
            # a thread may still be at it: the slot is held until it is done
            task.add_done_callback(self._abandoned)
            raise
        self._metrics.on_prepared(self._answer)
        self._task = asyncio.create_task(self._compute(self._answer))
        self._task.add_done_callback(lambda _: self.slot.leave())
        self._cancel_scope.stopped.add_done_callback(self._stopped)
        return self._answer

    async def chunks(self, ping: float | None = None) -> AsyncGenerator[Chunk | None, None]:
        """The chunks as they come; None after each ``ping`` seconds in which nothing came.

        Raises what the computation raised, or the reason for which it was cancelled.
        """
        while not self._handed_over:
            try:
                async with asyncio.timeout(ping):
                    event = await self._events.get()
            except TimeoutError:
                yield None
                continue
            if isinstance(event, BaseException):
                raise event
            self._unread.release()
            self._metrics.on_chunk(event)
            self._handed_over = event.finish is not None
            yield event

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Nobody reads any more: end what still goes on."""
        self._closed.set()
        self._cancel_scope.close()
        if self._task is not None:
            self._cancel(self._task)

    async def _compute(self, answer: Answer) -> None:
        await self.slot.wait_for_turn()
        self._computing = True
        self._metrics.on_start()
        await in_thread(lambda: self._iterate(answer))

    def _iterate(self, answer: Answer) -> None:
        """In a thread: the chunks, and what goes wrong, go to the event loop."""
        try:
            with closing(answer.chunks):
                for chunk in answer.chunks:
                    while not self._unread.acquire(timeout=0.1):
                        if self._closed.is_set():
                            return
                    call_in_loop(self._loop, self._events.put_nowait, chunk)
        except BaseException as failure:
            call_in_loop(self._loop, self._events.put_nowait, failure)

    def _stopped(self, reason: asyncio.Future[Exception]) -> None:
        if not reason.cancelled():
            self._events.put_nowait(reason.result())

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if task.done() or self._handed_over:
            return
        if not self._computing:
            task.cancel()
            return
        assert self._answer is not None
        self.slot.mark_stopping()
        # closing a session may wait for the library, which must not hold the loop
        threading.Thread(target=self._answer.cancel, daemon=True).start()

    def _abandoned(self, task: asyncio.Task[Answer]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().chunks.close()
        self.slot.leave()
