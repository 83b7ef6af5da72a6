"""Work that must not hold the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
            tell(loop, settle, None, failure)
        else:
            tell(loop, settle, result, None)

    threading.Thread(target=run, daemon=True).start()
    return await done


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """Call ``callback`` on the loop from another thread; nothing happens when the loop has ended."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
