"""Caches of ended generations, kept for a while: a prompt that begins like one of them reads only its rest.

A conversation's next turn begins like the one before, images included, whose places hold the same token ids
whatever they show: so a cache is known by its ids and by the content of its images.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends.base import Prompt

C = TypeVar("C")

KEPT = 8  # caches
KEPT_BYTES = 1 << 30  # of keys and values; for the 2B model in float32 that is some 4,600 tokens
WORTH = 16  # tokens; a shorter common beginning is read as fast as it is looked after

# A run of one token goes through other kernels than a run of several, and these round otherwise: read at
# least this much anew, so that the same prompt asked twice gets the same scores, bit for bit
TAIL = 8


class CachedImage(NamedTuple):
    """An image in a prompt: the places it fills, and which one it is."""

    first: int
    end: int
    sha256: bytes


@dataclass(frozen=True, eq=False)
class CachedPrefix:
    """What a cache holds."""

    ids: NDArray[np.int64]  # [tokens]
    images: tuple[CachedImage, ...] = ()

    @classmethod
    def of(cls, prompt: Prompt) -> CachedPrefix:
        """All of a prompt; its images' patches are hashed."""
        if prompt.spans is None or prompt.grid is None or prompt.patches is None:
            return cls(prompt.ids)
        digests = image_digests(prompt.patches, prompt.grid)
        images = (
            CachedImage(int(first), int(end), digest)
            for (first, end), digest in zip(prompt.spans, digests, strict=True)
        )
        return cls(prompt.ids, tuple(images))

    def first(self, tokens: int) -> CachedPrefix:
        """The beginning of ``tokens`` tokens, without an image that it cuts through."""
        images = tuple(image for image in self.images if image.end <= tokens)
        return CachedPrefix(self.ids[:tokens], images)

    def then(self, tokens: list[int]) -> CachedPrefix:
        """With the tokens of an answer behind."""
        return replace(self, ids=np.append(self.ids, tokens))

    def common(self, other: CachedPrefix) -> int:
        """How many tokens both begin with; never a part of an image."""
        shorter = min(len(self.ids), len(other.ids))
        different = np.flatnonzero(self.ids[:shorter] != other.ids[:shorter])
        same = int(different[0]) if len(different) else shorter
        ours, theirs = set(self.images), set(other.images)
        return min([same, *(image.first for image in ours ^ theirs), *_cut(ours & theirs, same)])


@dataclass(eq=False)
class _Entry(Generic[C]):
    content: CachedPrefix
    cache: C
    nbytes: int


class PrefixCache(Generic[C]):
    """Caches that nobody uses, those used last; safe to use from many threads."""

    def __init__(self, kept_bytes: int = KEPT_BYTES, kept: int = KEPT) -> None:
        self._kept_bytes, self._most = kept_bytes, kept
        self._entries: list[_Entry[C]] = []  # the one used last stands last
        self._lock = threading.Lock()

    def give(self, content: CachedPrefix, cache: C, nbytes: int) -> None:
        """Keep ``cache``, which holds ``content``; the caller uses it no more."""
        with self._lock:
            self._entries.append(_Entry(content, cache, nbytes))
            while len(self._entries) > self._most or self._nbytes > self._kept_bytes:
                del self._entries[0]

    def take(
        self,
        content: CachedPrefix,
        fits: Callable[[C], bool] = lambda _cache: True,
        copy: Callable[[C, int], C] | None = None,
    ) -> tuple[C, int] | None:
        """The cache that begins most like ``content``, and how many tokens of it to go on from.

        It is the caller's from then on. Where more than half of what it holds would be lost it stays, and
        where it does not pass ``fits`` it is of no use; ``copy`` then makes one of its first tokens.
        None: there is nothing worth it.
        """
        wanted = content.first(max(0, len(content.ids) - TAIL))
        with self._lock:
            ranked = [(entry.content.common(wanted), entry) for entry in self._entries]
            for same, entry in sorted(ranked, key=lambda pair: -pair[0]):
                if same < WORTH:
                    return None
                mostly = 2 * same >= len(entry.content.ids)
                if mostly and (copy is not None or fits(entry.cache)):
                    self._entries.remove(entry)
                if mostly and fits(entry.cache):
                    return entry.cache, same
                if copy is not None:
                    return copy(entry.cache, same), same
        return None

    @property
    def _nbytes(self) -> int:
        return sum(entry.nbytes for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def image_digests(patches: NDArray[np.float32], grid: NDArray[np.int64]) -> list[bytes]:
    """What tells each image from others: sha256 of its row of ``grid`` [images, 3] and of its patches."""
    rows = np.split(patches, np.cumsum(grid.prod(1))[:-1])
    return [_digest(shape, values) for shape, values in zip(grid, rows, strict=True)]


def _digest(shape: NDArray[np.int64], values: NDArray[np.float32]) -> bytes:
    digest = hashlib.sha256(np.ascontiguousarray(shape, np.int64).tobytes() + b"|")
    digest.update(np.ascontiguousarray(values).data.cast("B"))
    return digest.digest()


def _cut(images: set[CachedImage], tokens: int) -> list[int]:
    return [image.first for image in images if image.first < tokens < image.end]
