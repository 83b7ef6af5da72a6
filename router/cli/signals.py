"""Ctrl-C, SIGTERM and a time limit, seen while a library computes: the work is done in another thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeAlias, TypeVar

from backends.base import BackendError

T = TypeVar("T")
_Events: TypeAlias = "SimpleQueue[tuple[bool, T | BaseException | None]]"  # whether more follows; what


def iterate_in_thread(items: Iterator[T], timeout: float | None = None) -> Iterator[T]:
    """The same items. BackendError ``timeout``: they were not all there after ``timeout`` seconds.

    Python tells the main thread of a signal only between two of its own steps; one matrix product or one
    ``session.run`` of another library can be a step of many seconds. SIGINT and SIGTERM are raised here,
    between two items, as KeyboardInterrupt and SystemExit; a second one is raised at once, wherever that is.
    """
    events: _Events[T] = SimpleQueue()  # unlike Queue it may be filled by a signal handler
    threading.Thread(target=_work, args=(items, events), daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    with _signals_into(events):
        while True:
            try:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                more, item = events.get(timeout=remaining)
            except Empty:
                raise BackendError(
                    f"stopped after {timeout:g} s, as --timeout says", code="timeout"
                ) from None
            if isinstance(item, BaseException):
                raise item
            if not more:
                return
            yield item  # type: ignore[misc]


def _work(items: Iterator[T], events: _Events[T]) -> None:
    try:
        for item in items:
            events.put((True, item))
        events.put((False, None))
    except BaseException as failure:
        events.put((False, failure))


@contextmanager
def _signals_into(events: _Events[T]) -> Iterator[None]:
    """Turn signals into events: raised in the middle of a write they would lose what is being written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def pass_on(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, handlers[signal.Signals(number)])
        events.put((False, KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)))

    for number in handlers:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
