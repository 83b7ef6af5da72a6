"""Keys and values of sessions, in memory that onnxruntime reads and writes in place."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.onnx.errors import out_of_memory

Floats = NDArray[np.float32]


@dataclass(eq=False)
class Cache:
    """One session's keys and values, room for ``capacity`` tokens, and what is bound to a run."""

    capacity: int
    binding: Any
    tokens: int = 0  # held so far
    limit: int = 0  # tokens that the session which has it may fill
    store: CacheStore | None = None  # None: not in this process's memory

    @property
    def nbytes(self) -> int:
        """Bytes in memory: of the tokens held, since the system lends pages on first use."""
        return 0 if self.store is None else self.store.nbytes * self.tokens // self.capacity


@dataclass(eq=False)
class CacheStore:
    """Arrays [rows, kv_heads, capacity, head_dim], a key and a value a layer; pages are lent on first use."""

    arrays: list[Floats] = field(default_factory=list)
    _pages: list[mmap.mmap] = field(default_factory=list)

    @classmethod
    def of(cls, count: int, shape: tuple[int, ...]) -> CacheStore:
        """``count`` arrays of ``shape``; BackendError ``out_of_memory``."""
        store = cls()
        for _ in range(count):
            # maps of their own: their pages go back to the system one by one, and all with them
            try:
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
                pages = mmap.mmap(-1, 4 * math.prod(shape), flags=flags)
            except OSError as error:
                raise out_of_memory() from error
            store._pages.append(pages)
            store.arrays.append(np.frombuffer(pages, np.float32).reshape(shape))
        return store

    @property
    def nbytes(self) -> int:
        """Bytes when it is full."""
        return sum(array.nbytes for array in self.arrays)

    def free(self) -> None:
        """Give the pages back; the arrays read zeros then, and can be filled again."""
        for pages in self._pages:
            pages.madvise(mmap.MADV_DONTNEED)


def copy_row(source: Iterable[Floats], row: int, target: Sequence[Floats], to: int, tokens: int) -> None:
    """Copy the first ``tokens`` of a row of one store into a row of another."""
    for read, written in zip(source, target, strict=True):
        written[to, :, :tokens] = read[row, :, :tokens]
