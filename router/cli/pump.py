"""Iterate in a thread of its own, so that Ctrl-C and a time limit are seen while a library computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import Empty, Queue
from typing import TypeVar

from backends.base import BackendError

T = TypeVar("T")


def pump(items: Iterator[T], timeout: float | None = None) -> Iterator[T]:
    """The same items. BackendError ``timeout``: they were not all there after ``timeout`` seconds.

    Python tells the main thread of a signal only between two of its own steps; one matrix product or one
    ``session.run`` of another library can be a step of many seconds.
    """
    queue: Queue[tuple[bool, T | BaseException | None]] = Queue(maxsize=16)
    threading.Thread(target=_work, args=(items, queue), daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            more, item = queue.get(timeout=remaining)
        except Empty:
            raise BackendError(f"stopped after {timeout:g} s, as --timeout says", code="timeout") from None
        if isinstance(item, BaseException):
            raise item
        if not more:
            return
        yield item  # type: ignore[misc]


def _work(items: Iterator[T], queue: Queue[tuple[bool, T | BaseException | None]]) -> None:
    try:
        for item in items:
            queue.put((True, item))
        queue.put((False, None))
    except BaseException as failure:
        queue.put((False, failure))
