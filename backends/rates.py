"""What a machine is measured by: one matrix product, timed at its best."""

from __future__ import annotations

import time
from collections.abc import Callable

# the widest matrix of the 2B model's layers, read by a chunk of a prompt
ROWS, INNER, COLUMNS = 512, 2048, 6144
OPERATIONS = 2 * ROWS * INNER * COLUMNS  # a multiplication and an addition for each weight and row
SECONDS = 0.4  # how long a product is repeated


def least_seconds(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """How long ``work`` takes at its best, repeated for ``seconds`` after one run to warm up."""
    work()
    least, end = float("inf"), time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or least == float("inf"):
        work()
        least = min(least, time.perf_counter() - started)
    return least
