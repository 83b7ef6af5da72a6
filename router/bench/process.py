"""A process of its own for what must not share memory or libraries with anything else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from backends.base import BackendError, RequestError

Work = Callable[[Any], Any]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 5  # seconds for a process to end when it is told to


class Process:
    """Calls ``work`` in another process, which keeps it and what it holds until it is closed."""

    def __init__(self, work: Work, name: str) -> None:
        # a forked process would share the parent's memory, and libraries' threads do not survive a fork
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, work), daemon=True, name=f"hybrid-{name}"
        )
        with _signals_held_back():
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None
        return self._process.pid

    def call(self, what: Any) -> Any:
        """What ``work`` makes of ``what``; its RequestError or BackendError, or one that says how it died."""
        try:
            self._connection.send(what)
            worked, reply = self._connection.recv()
        except (EOFError, OSError):
            raise BackendError(self._obituary()) from None
        if not worked:
            raise reply
        return reply

    def close(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.terminate()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _obituary(self) -> str:
        self._process.join(_PATIENCE)
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            return "its process was killed, as happens when memory runs out; measure it alone"
        return f"its process ended with exit code {code}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Lets a process start whole, and with signals blocked; the parent sees them a moment later."""
    resource_tracker.ensure_running()  # when it starts it lets signals through again
    held: list[int] = []
    # a signal that this thread blocks reaches a library's thread, and so Python's handler all the same
    handlers = {number: _handle(number, lambda told, _frame: held.append(told)) for number in _SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            _handle(number, handler)
        for told in held:
            signal.raise_signal(told)


def _handle(number: signal.Signals, handler: Any) -> Any:
    """Set a handler, where this is the thread that may; the one before."""
    if threading.current_thread() is threading.main_thread():
        return signal.signal(number, handler)
    return None


def _serve(connection: Connection, work: Work) -> None:
    """In the process: answer until the other side goes."""
    # Ctrl-C, which reaches the whole group, stays blocked: the parent decides what ends
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.dup2(2, 1)  # stdout is the report's
    while True:
        try:
            what = connection.recv()
        except EOFError:
            return
        try:
            reply = (True, work(what))
        except (RequestError, BackendError) as error:
            reply = (False, error)
        except Exception as error:
            # the end of a process has no one else to tell, and the other end may not know the class
            reply = (False, BackendError(f"{type(error).__name__}: {error}"))
        connection.send(reply)
