"""How fast this machine reads memory with a number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from backends.rates import least_seconds

_LEAST_BYTES = 256 << 20
_CACHES = 8  # times the largest cache, so that next to nothing is read from it


def read_bandwidth(threads: int, cache_bytes: int | None = None, seconds: float = 1.5) -> float:
    """Bytes per second, at best: each thread looks for the largest value of its part of a buffer."""
    count = max(_LEAST_BYTES, _CACHES * (cache_bytes or 0)) // 4
    parts = np.array_split(np.ones(count, np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:  # numpy lets other threads go on while it reduces
        best = least_seconds(lambda: list(pool.map(np.max, parts)), seconds)
    return 4 * count / best
