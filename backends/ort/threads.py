"""How many processor cores this process may use, which is often fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Linux control groups, version 2: "quota period", or "max period"


def usable_cores(quota: Path = _QUOTA) -> int:
    """The cores that the affinity mask names, and no more than the container's share of time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    return allowed if share == "max" else max(1, min(allowed, math.ceil(int(share) / int(period))))
