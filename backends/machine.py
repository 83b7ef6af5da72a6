"""What concerns the process a model is loaded in: its cores, its memory, and that it is not forked away."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path

from backends.base import BackendError

_GROUP = Path("/sys/fs/cgroup")  # Linux control groups, version 2, where a container's own limits stand
_QUOTA = _GROUP / "cpu.max"  # "quota period", or "max period"
_MEMINFO = Path("/proc/meminfo")


def usable_cores(quota: Path = _QUOTA) -> int:
    """The cores that the affinity mask names, and no more than the container's share of time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    return allowed if share == "max" else max(1, min(allowed, math.ceil(int(share) / int(period))))


def available_memory(meminfo: Path = _MEMINFO, group: Path = _GROUP) -> int | None:
    """Bytes of memory that a process can still take without swapping; None where that is not told."""
    return min([*_told(meminfo, "MemAvailable"), *_group_memory(group)], default=None)


def total_memory(meminfo: Path = _MEMINFO, group: Path = _GROUP) -> int | None:
    """Bytes of memory that the machine has, or the control group may take; None where that is not told."""
    return min([*_told(meminfo, "MemTotal"), *_group_limit(group)], default=None)


ARENAS = 2
_M_ARENA_MAX = -8  # as glibc's malloc.h has it


def use_few_arenas() -> None:
    """Let all threads that begin from now on share ARENAS arenas of the C library's allocator.

    By default there are eight for each core, and each keeps the most that any of its threads ever had: where
    threads come and go, a process grows until every arena has seen the worst. A MALLOC_ARENA_MAX in the
    environment stays as it is; where the library is not glibc, nothing is to be done.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
    except (AttributeError, OSError, TypeError):
        return


_NO_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate", "cannot allocate", "out of memory")


def tells_of_no_memory(message: str) -> bool:
    """Whether a library's message says that the system gave it no memory."""
    return any(sign in message.lower() for sign in _NO_MEMORY)


class LoadedHere:
    """Remembers the process that loaded a model: the library's threads do not follow into a forked one."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def check(self) -> None:
        """BackendError in a forked process, where a run would wait for those threads for ever."""
        if os.getpid() != self._process:
            raise BackendError(
                "the model was loaded before this process was forked; load it in this process, or spawn",
                code="backend_unavailable",
            )


def _told(meminfo: Path, name: str) -> list[int]:
    """Bytes as the system gives them under ``name``."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]


def _group_limit(group: Path) -> list[int]:
    try:
        return [int((group / "memory.max").read_text())]
    except (OSError, ValueError):  # no such file, or "max": no limit
        return []


def _group_memory(group: Path) -> list[int]:
    """What the control group, a container's for example, still allows."""
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        statistics = (group / "memory.stat").read_text()
        cached = [
            int(line.split()[1]) for line in statistics.splitlines() if line.startswith("inactive_file ")
        ]
        return [int(limit) - int(used) + sum(cached)]
    except (OSError, ValueError):  # no such file, or "max": no limit
        return []
