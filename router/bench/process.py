"""A process of its own for what must not share memory or libraries with anything else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from backends.base import BackendError, RequestError
from backends.machine import peak_bytes, reset_peak
from router.bench.engine import Engine, Facts, Measurement
from router.bench.workloads import Job
from router.types import Message

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


def take(engine: Engine, job: Job) -> Measurement:
    """Answer the job's requests and time them; the first turn of a follow-up is answered before the clock."""
    count = job.workload.output_tokens
    asked = [_continued(engine, messages, job.question, count) for messages in job.conversations]
    reset_peak()
    started = time.perf_counter()
    if len(asked) == 1:
        samples = [engine.answer(asked[0], count).sample]
    else:
        with ThreadPoolExecutor(len(asked)) as streams:
            samples = [answer.sample for answer in streams.map(lambda m: engine.answer(m, count), asked)]
    seconds = time.perf_counter() - started
    if job.question is not None:
        # its images were encoded in the first turn
        samples = [replace(sample, patches=0) for sample in samples]
    # who computes in another process holds nothing here
    return Measurement(tuple(samples), seconds, None if engine.facts.peak_bytes is None else peak_bytes())


def _continued(
    engine: Engine, messages: Sequence[Message], question: str | None, count: int
) -> Sequence[Message]:
    if question is None:
        return messages
    answer = engine.answer(messages, count).text
    return (*messages, Message.of("assistant", answer), Message.of("user", question))


@dataclass(frozen=True)
class Target:
    """What is measured under ``name``; ``make`` is sent to the process, and called there."""

    name: str
    make: Callable[[], Engine]


class Worker:
    """A process that holds one engine; it computes only while it is asked to."""

    def __init__(self, target: Target) -> None:
        """Start the process; nothing is loaded yet."""
        self._process = Process(_Host(target.make), f"bench-{target.name}")
        self.pid = self._process.pid

    def load(self) -> Facts:
        """Make the engine; BackendError and RequestError say why it cannot be."""
        facts: Facts = self._process.call(None)
        return facts

    def take(self, job: Job) -> Measurement:
        """Take one turn; errors are the engine's, or a BackendError when the process died."""
        turn: Measurement = self._process.call(job)
        return turn

    def close(self) -> None:
        """End the process."""
        self._process.close()


@contextmanager
def workers(targets: Sequence[Target]) -> Iterator[dict[str, Worker]]:
    """A process for each target; all of them end with the block."""
    started: dict[str, Worker] = {}
    try:
        for target in targets:
            started[target.name] = Worker(target)
        yield started
    finally:
        for worker in started.values():
            worker.close()


@dataclass
class _Host:
    """What the process keeps: the engine, once it is made."""

    make: Callable[[], Engine]
    engines: list[Engine] = field(default_factory=list)

    def __call__(self, job: Job | None) -> Facts | Measurement:
        if job is None:
            self.engines[:] = [self.make()]
            return self.engines[0].facts
        return take(self.engines[0], job)
