"""Image features, kept by the image's content so that a conversation encodes each image once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

KEPT_BYTES = 256 << 20  # some forty images of 1024 x 1024 for the 2B model


class Features(NamedTuple):
    """What the language model reads of one or several images."""

    main: NDArray[np.float32]  # [features, hidden]: they stand in for embeddings
    deepstack: tuple[NDArray[np.float32], ...]  # [features, hidden] each: added to the first layers' outputs

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.main.nbytes + sum(feature.nbytes for feature in self.deepstack)


class Encoder(Protocol):
    """An image tower."""

    def encode(
        self, patches: NDArray[np.float32], grid: NDArray[np.int64], run_options: ort.RunOptions | None = None
    ) -> Features:
        """Read images of ``grid`` [images, 3] whose ``patches`` [patches, 1536] follow one another.

        BackendError ends the run when another thread sets ``run_options.terminate``.
        """
        ...


class FeatureCache:
    """Encodes images one by one, and keeps the features of those used last; safe to use from many threads.

    An image's features must not depend on its neighbours, and an 8-bit tower scales what it sees together.
    """

    def __init__(self, encoder: Encoder, kept_bytes: int = KEPT_BYTES) -> None:
        self._encoder = encoder
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[bytes, Features] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, digests: Sequence[bytes]) -> int:
        """How many of these images' features are kept."""
        with self._lock:
            return sum(digest in self._kept for digest in digests)

    def encode(
        self,
        patches: NDArray[np.float32],
        grid: NDArray[np.int64],
        digests: Sequence[bytes],
        run_options: ort.RunOptions | None = None,
    ) -> Features:
        """The features of all images, one after the other, as `Encoder.encode`.

        ``digests``: what tells each image from others, see `backends.prefix_cache.image_digests`.
        """
        each = []
        for index, (end, digest) in enumerate(zip(np.cumsum(grid.prod(1)), digests, strict=True)):
            rows = np.ascontiguousarray(patches[end - grid[index].prod() : end])
            each.append(self._one(rows, grid[index : index + 1], digest, run_options))
        main = np.concatenate([features.main for features in each])
        layers = zip(*(features.deepstack for features in each), strict=True)
        return Features(main, tuple(np.concatenate(layer) for layer in layers))

    def _one(
        self,
        patches: NDArray[np.float32],
        grid: NDArray[np.int64],
        key: bytes,
        run_options: ort.RunOptions | None,
    ) -> Features:
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        features = self._encoder.encode(patches, grid, run_options)
        with self._lock:
            self._kept[key] = features
            while sum(each.nbytes for each in self._kept.values()) > self._kept_bytes:
                self._kept.popitem(last=False)
        return features
