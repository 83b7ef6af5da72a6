"""Whether other processes kept this machine busy, by the system's count of processor time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SHARE = 0.05  # of the cores; what others use beyond it shows in the figures

_PROC = Path("/proc")


@dataclass(frozen=True)
class Load:
    """Processor seconds up to a moment, of all processes and of our own."""

    at: float
    all: float
    own: float


class IdleWatch:
    """Tells how many cores other processes used since it was last asked; None where that is not known."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        """``pids``: processes that are ours beside this one."""
        self.laps: dict[str, float | None] = {}
        self._own = dict.fromkeys(("self", *map(str, pids)), 0.0)
        self._last = self._load()

    def lap(self, name: str) -> float | None:
        """Cores that others used since the last lap, or since the beginning; kept in ``laps`` too."""
        before, self._last = self._last, self._load()
        self.laps[name] = None
        if before is not None and self._last is not None and self._last.at > before.at:
            used = (self._last.all - before.all) - (self._last.own - before.own)
            self.laps[name] = max(0.0, used / (self._last.at - before.at))
        return self.laps[name]

    def _load(self) -> Load | None:
        try:
            for pid, known in self._own.items():
                self._own[pid] = _own_seconds(pid, known)
            return Load(time.perf_counter(), _all_seconds(), sum(self._own.values()))
        except (OSError, ValueError, IndexError):
            return None


def is_busy(cores: float | None) -> bool:
    """Whether others' use of ``cores`` is more than a small share of those there are."""
    return cores is not None and cores > SHARE * (os.cpu_count() or 1)


def _all_seconds() -> float:
    # user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user's already
    ticks = [int(value) for value in (_PROC / "stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds(pid: str, known: float) -> float:
    """User and system time of a process; what was ``known`` last once it has ended."""
    try:
        text = (_PROC / pid / "stat").read_text("ascii", "replace")
    except OSError:
        return known
    user, system = text.rpartition(")")[2].split()[11:13]  # a name may hold spaces and brackets
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
