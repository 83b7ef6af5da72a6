"""What may end a request before its answer does, and work in threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.types import Receive

from backends.base import BackendError

T = TypeVar("T")


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


class CancelScope:
    """Waits for the client to leave, for the time to be up, or for whoever calls ``stop``.

    ``stopped`` then holds the reason. Made once the body is read: what the client sends after it is its end.
    """

    def __init__(self, receive: Receive, timeout: float, on_close: Callable[[CancelScope], None]) -> None:
        loop = asyncio.get_running_loop()
        self.started = loop.time()
        self.stopped: asyncio.Future[Exception] = loop.create_future()
        self._on_close = on_close
        self._timer = loop.call_later(timeout, self.stop, _timed_out(timeout))
        self._listener = asyncio.create_task(self._listen(receive))

    async def first(self, awaitable: Awaitable[T]) -> T:
        """The result of ``awaitable``, or the reason to stop raised, whichever comes first."""
        task = asyncio.ensure_future(awaitable)
        try:
            either: set[asyncio.Future[Any]] = {task, self.stopped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self.stopped.result()
        finally:
            task.cancel()

    def stop(self, reason: Exception) -> None:
        """End the request; the first reason counts."""
        if not self.stopped.done():
            self.stopped.set_result(reason)

    def close(self) -> None:
        """Watch no longer: the answer is sent, or given up."""
        self._timer.cancel()
        self._listener.cancel()
        self._on_close(self)

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop(ClientLeftError())


def _timed_out(timeout: float) -> BackendError:
    return BackendError(f"stopped after {timeout:g} s, the longest that an answer may take", code="timeout")


async def in_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, computed in a thread of its own.

    The thread is a daemon, unlike those of asyncio's pool: one that hangs in a library does not keep the
    process from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, failure: BaseException | None) -> None:
        if done.cancelled():
            return
        if failure is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(failure)

    def run() -> None:
        try:
            result = work()
        except BaseException as failure:
            call_in_loop(loop, settle, None, failure)
        else:
            call_in_loop(loop, settle, result, None)

    threading.Thread(target=run, daemon=True).start()
    return await done


def call_in_loop(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object
) -> None:
    """Call ``callback`` on the loop from another thread; nothing happens when the loop has ended."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
