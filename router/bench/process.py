"""Processes of their own: for work that must not share memory or libraries with anything else.

A `Process` keeps what it was sent and answers calls; a `Worker` is one that holds an engine, so that its
memory is its own and its libraries disturb no other. `measure` runs there: one request, several at once, or
a follow-up.
"""

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
_END_SECONDS = 5  # seconds for a process to end when it is told to


class Process:
    """Calls ``work`` in another process, which keeps it and what it holds until it is closed."""

    def __init__(self, work: Work, name: str) -> None:
        # a forked process would share the parent's memory, and libraries' threads do not survive a fork
        context = get_context("spawn")
        self._connection, far_end = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(far_end, work), daemon=True, name=f"hybrid-{name}"
        )
        with _signals_held_back():
            self._process.start()
        far_end.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended: below 0, minus the signal; None while it runs."""
        return self._process.exitcode

    def send(self, argument: Any) -> None:
        """Let it begin with ``argument``, and do not wait. OSError: it has ended."""
        self._connection.send(argument)

    def call(self, argument: Any) -> Any:
        """What ``work`` makes of ``argument``; its errors, or a BackendError that says how it died."""
        try:
            self.send(argument)
            succeeded, reply = self._connection.recv()
        except (EOFError, OSError):
            raise BackendError(self._end_reason()) from None
        if not succeeded:
            raise reply
        return reply

    def close(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.terminate()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _end_reason(self) -> str:
        self._process.join(_END_SECONDS)
        if self.exit_code == -signal.SIGKILL:
            return "its process was killed, as happens when memory runs out; measure it alone"
        return f"its process ended with exit code {self.exit_code}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Lets a process start whole, and with signals blocked; the parent sees them a moment later."""
    resource_tracker.ensure_running()  # when it starts it lets signals through again
    pending: list[int] = []
    # a signal that this thread blocks reaches a library's thread, and so Python's handler all the same
    handlers = {each: _handle(each, lambda number, _frame: pending.append(number)) for each in _SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for each, handler in handlers.items():
            _handle(each, handler)
        for number in pending:
            signal.raise_signal(number)


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
            argument = connection.recv()
        except EOFError:
            return
        try:
            reply = (True, work(argument))
        except (RequestError, BackendError) as error:
            reply = (False, error)
        except Exception as error:
            # the end of a process has no one else to tell, and the other end may not know the class
            reply = (False, BackendError(f"{type(error).__name__}: {error}"))
        connection.send(reply)


def measure(engine: Engine, job: Job) -> Measurement:
    """Answer the job's requests and time them; the first turn of a follow-up is answered before the clock."""
    count = job.workload.output_tokens
    requests = [_continued(engine, messages, job.question, count) for messages in job.conversations]
    reset_peak()
    started = time.perf_counter()
    if len(requests) == 1:
        samples = [engine.answer(requests[0], count).sample]
    else:
        with ThreadPoolExecutor(len(requests)) as streams:
            samples = [
                answer.sample
                for answer in streams.map(lambda request: engine.answer(request, count), requests)
            ]
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
        self._process = Process(_EngineHost(target.make), f"bench-{target.name}")
        self.pid = self._process.pid

    def load(self) -> Facts:
        """Make the engine; BackendError and RequestError say why it cannot be."""
        facts: Facts = self._process.call(None)
        return facts

    def measure(self, job: Job) -> Measurement:
        """Answer one job; errors are the engine's, or a BackendError when the process died."""
        measurement: Measurement = self._process.call(job)
        return measurement

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
class _EngineHost:
    """What the worker's process keeps: the engine, once it is made."""

    make: Callable[[], Engine]
    engines: list[Engine] = field(default_factory=list)

    def __call__(self, job: Job | None) -> Facts | Measurement:
        if job is None:
            self.engines[:] = [self.make()]
            return self.engines[0].facts
        return measure(self.engines[0], job)
