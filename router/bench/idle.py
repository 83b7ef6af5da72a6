"""Whether other processes kept this machine busy, by the system's count of processor time.

Cores that others used = (processor seconds of all processes - those of ours) / seconds between two laps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

BUSY_SHARE = 0.05  # of the cores; what others use beyond it shows in the figures


@dataclass(frozen=True)
class Load:
    """Processor seconds up to a moment, of all processes and of ours."""

    at: float
    all: float
    ours: float


class IdleWatch:
    """Tells how many cores other processes used since it was last asked; None where that is not known."""

    def __init__(self, pids: Iterable[int] = (), proc: Path = Path("/proc")) -> None:
        """``pids``: processes that are ours beside this one; ``proc``: where the system tells of all."""
        self._proc = proc
        self.laps: dict[str, float | None] = {}
        self._our_seconds = dict.fromkeys(("self", *map(str, pids)), 0.0)
        self._last = self._load()

    def lap(self, name: str) -> float | None:
        """Cores that others used since the last lap, or since the beginning; kept in ``laps`` too."""
        before, self._last = self._last, self._load()
        self.laps[name] = None
        if before is not None and self._last is not None and self._last.at > before.at:
            used = (self._last.all - before.all) - (self._last.ours - before.ours)
            self.laps[name] = max(0.0, used / (self._last.at - before.at))
        return self.laps[name]

    def _load(self) -> Load | None:
        try:
            for pid, last in self._our_seconds.items():
                self._our_seconds[pid] = _seconds_of(self._proc / pid, last)
            return Load(time.perf_counter(), _all_seconds(self._proc), sum(self._our_seconds.values()))
        except (OSError, ValueError, IndexError):
            return None


def is_busy(cores: float | None) -> bool:
    """Whether others' use of ``cores`` is more than a small share of those there are."""
    return cores is not None and cores > BUSY_SHARE * (os.cpu_count() or 1)


def busy_notes(before: float | None, laps: Mapping[str, float | None], cores: int) -> tuple[str, ...]:
    """What is to be said of other processes: ``before`` the run, and during each workload."""
    notes = []
    if is_busy(before):
        notes.append(f"just before the run other processes used {before:.2f} of {cores} cores")
    busy = {name: used for name, used in laps.items() if name and used is not None and is_busy(used)}
    if busy:
        worst = max(busy, key=lambda name: busy[name])
        where = f"'{worst}'" if len(busy) == 1 else f"{len(busy)} workloads, most at '{worst}',"
        notes.append(
            f"during {where} other processes used {busy[worst]:.2f} of {cores} cores: "
            "these are not the figures of an idle machine"
        )
    return tuple(notes)


def _all_seconds(proc: Path) -> float:
    # user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user's already
    ticks = [int(value) for value in (proc / "stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _seconds_of(process: Path, last: float) -> float:
    """User and system time of a process; what it was ``last`` once the process has ended."""
    try:
        text = (process / "stat").read_text("ascii", "replace")
    except OSError:
        return last
    user, system = text.rpartition(")")[2].split()[11:13]  # a name may hold spaces and brackets
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
