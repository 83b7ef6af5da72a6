"""A target in a process of its own, so that its memory is its own and its libraries disturb no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from router.bench.engine import Engine, Facts, Turn
from router.bench.process import Process
from router.bench.turns import take
from router.bench.workloads import Job


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

    def take(self, job: Job) -> Turn:
        """Take one turn; errors are the engine's, or a BackendError when the process died."""
        turn: Turn = self._process.call(job)
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

    def __call__(self, job: Job | None) -> Facts | Turn:
        if job is None:
            self.engines[:] = [self.make()]
            return self.engines[0].facts
        return take(self.engines[0], job)
