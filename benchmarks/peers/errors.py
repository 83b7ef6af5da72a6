"""How far a rounded matrix is from the one it was made from, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

VALUES = 1 << 24  # compared at once: a head has more than memory should hold three times


def relative_error(
    shape: tuple[int, ...],
    right: Callable[[slice], NDArray[np.float32]],
    kept: Callable[[slice], NDArray[np.float32]],
) -> float:
    """||W - Wq|| / ||W||; ``right`` gives rows of W, which has ``shape``, and ``kept`` those of Wq."""
    moved = whole = 0.0
    step = max(1, VALUES // math.prod(shape[1:]))
    for first in range(0, shape[0], step):
        rows = slice(first, first + step)
        wanted = right(rows)
        # in float64: a head has more values than float32 can sum
        moved += float(np.square(wanted - kept(rows).reshape(wanted.shape)).sum(dtype=np.float64))
        whole += float(np.square(wanted).sum(dtype=np.float64))
    return math.sqrt(moved / whole)
