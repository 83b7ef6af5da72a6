"""The "onnx" backend: one export folder on onnxruntime, loaded once, and its sessions.

A session has its cache, its positions, and a way to be stopped from another thread; the weights, the images'
features, the kept caches and the batcher are the backend's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.base import BackendError, Logits, Prefilled, Prompt, Runtime, Traits
from backends.onnx.batch import Batcher
from backends.onnx.cache import Cache
from backends.onnx.decoder import Decoder
from backends.onnx.embeddings import Embeddings
from backends.onnx.errors import shrink_after, trim
from backends.onnx.features import Encoder, FeatureCache, Features
from backends.onnx.prefill import MODEL, Filler
from backends.onnx.vision import VisionEncoder
from backends.prefix_cache import KEPT_BYTES, CachedPrefix, PrefixCache, image_digests
from backends.qwen3vl import Config, VisionConfig, position_ids


class OnnxBackend:
    """An export on onnxruntime; its sessions share the weights and the images seen, and nothing else."""

    name = "onnx"
    traits = Traits(sees_images=True, reads_export=True, decodes_together=True)
    dtype = "float32"  # whatever the weights are held in

    def __init__(
        self,
        config: Config,
        decoder: Decoder,
        embeddings: Embeddings,
        encoder: Encoder,
        kept_bytes: int = KEPT_BYTES,
        filler: Filler | None = None,
    ) -> None:
        self.context = config.text.context
        self.merge = config.vision.merge
        self.decoder = decoder
        self.filler = filler  # reads long prompts, where the export has one
        self.embeddings = embeddings
        self.features = FeatureCache(encoder)
        self.batcher = Batcher(decoder)
        self.caches: PrefixCache[Cache] = PrefixCache(kept_bytes)

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> OnnxBackend:
        """Load an export folder; BackendError says which file is missing, damaged or not of one piece."""
        config = Config.read(folder)
        for name in ("decoder.onnx", "weights.data", "vision.onnx"):
            if not (folder / name).is_file():
                raise BackendError(
                    f"{folder / name} is missing; export the model again", code="model_invalid"
                )
        graphs = runtime.packed or folder
        decoder = Decoder(graphs, runtime)
        if (decoder.hidden, decoder.deepstack) != (config.text.hidden, len(config.vision.deepstack)):
            raise BackendError(
                f"{graphs / 'decoder.onnx'} does not belong to its config.json; export the model again",
                code="model_invalid",
            )
        embeddings = Embeddings.read(graphs, decoder.notes.get("embeddings", ""))
        encoder = _encoder(folder, config.vision, runtime)
        on_processor = decoder.device == "cpu" and (folder / MODEL).is_file()
        filler = Filler(folder, runtime) if on_processor else None
        trim()
        return cls(config, decoder, embeddings, encoder, runtime.kept_bytes, filler)

    @property
    def device(self) -> str:
        """Where the language model computes: cpu or cuda."""
        return self.decoder.device

    def open(self, capacity: int) -> OnnxSession:
        """Start a session whose cache has room for ``capacity`` tokens."""
        return OnnxSession(self, capacity)

    def image_features(self, prompt: Prompt) -> list[NDArray[np.float32]]:
        """Main features [image_tokens, hidden], then each DeepStack feature, to compare backends by."""
        assert prompt.patches is not None
        assert prompt.grid is not None
        digests = image_digests(prompt.patches, prompt.grid)
        features = self.features.encode(prompt.patches, prompt.grid, digests)
        return [features.main, *features.deepstack]


def _encoder(folder: Path, config: VisionConfig, runtime: Runtime) -> Encoder:
    if runtime.vision == "onnx":
        return VisionEncoder(folder, config, runtime)
    if runtime.checkpoint is None:
        raise BackendError("PyTorch's vision reads a checkpoint, and this is an export; name the checkpoint")
    try:
        from backends.onnx.torch_vision import TorchVisionEncoder
    except ImportError:
        raise BackendError(
            "PyTorch's vision needs PyTorch: pip install 'hybrid-router[torch]'", code="backend_unavailable"
        ) from None
    return TorchVisionEncoder(runtime.checkpoint, runtime)


CHUNK = 512  # tokens of a prompt read in one run: bounds the activations, and how long a stop can take
SPARE = 4096  # tokens of room beyond what is asked for, so that the next turns go on in the same cache


class OnnxSession:
    """One generation of at most ``capacity`` tokens.

    `close` may come from another thread, also in the middle of a `prefill` or `decode`: that one then stops
    within a second and raises BackendError ``cancelled``. The contract needs no further method for it.
    """

    def __init__(self, backend: OnnxBackend, capacity: int) -> None:
        self._backend = backend
        self._capacity = capacity
        self.cache: Cache | None = None  # keys and values of what was read, while it is open
        self._content = CachedPrefix(np.empty(0, np.int64))  # what the cache holds, or is about to
        self._answer: list[int] = []  # tokens behind the content
        self._next_position = 0
        self._closed = False
        self._running: ort.RunOptions | None = None
        self._lock = threading.Lock()

    def prefill(self, prompt: Prompt) -> Prefilled:
        """Encode the images and read the prompt, a chunk at a time, from where a kept cache ends."""
        count = len(prompt.ids)
        if not count:
            raise BackendError("the prompt has no tokens", code="internal_inconsistency")
        _check_patches(prompt)
        positions, self._next_position = position_ids(count, prompt.spans, prompt.grid, self._backend.merge)
        content = CachedPrefix.of(prompt)
        cached = self._start(content)
        unread = prompt.after(cached)
        digests = [image.sha256 for image in content.images[prompt.images - unread.images :]]
        known = self._backend.features.count(digests) if digests else 0
        started = time.perf_counter()
        features = self._see(unread, digests)
        vision_seconds = 0.0 if features is None else time.perf_counter() - started
        logits = self._read(unread, features, positions[:, cached:])
        return Prefilled(logits, vision_seconds, cached, prompt.images - unread.images + known)

    def decode(self, token: int) -> Logits:
        """Read one token at the next position of this session."""
        embeddings = self._backend.embeddings(np.array([token]))
        positions = np.full((3, 1), self._next_position)
        self._next_position += 1
        self._answer.append(token)
        with self._stoppable() as run_options:
            assert self.cache is not None, "a prefill comes first"
            return self._backend.batcher.decode(self.cache, embeddings, positions, run_options)

    def close(self) -> None:
        """Stop what is running, and leave the cache to those that go on from it."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                self._running.terminate = True
            else:
                self._leave()

    def _start(self, content: CachedPrefix) -> int:
        """Get a cache, and return of how many tokens of ``content`` it holds the keys and values."""
        backend, decoder = self._backend, self._backend.decoder
        room = self._capacity + (SPARE if decoder.device == "cpu" else 0)  # elsewhere it is taken at once
        room = max(self._capacity, min(room, backend.context))
        with self._lock:
            self._check_open()
            self._leave()
            kept = backend.caches.take(
                content,
                fits=lambda cache: cache.capacity >= self._capacity,
                copy=lambda cache, tokens: decoder.copy(cache, tokens, room),
            )
            self.cache, cached = kept or (decoder.cache(room), 0)
            self.cache.tokens, self.cache.limit = cached, self._capacity
            self._content, self._answer = content, []
            return cached

    def _leave(self) -> None:
        """Give the cache away, with what it holds; the caller has the lock."""
        if self.cache is not None:
            self._backend.batcher.leave(self.cache)
        if self.cache is not None and self.cache.tokens and self.cache.store is not None:
            content = self._content.then(self._answer).first(self.cache.tokens)
            self._backend.caches.give(content, self.cache, self.cache.nbytes)
        self.cache = None

    def _see(self, prompt: Prompt, digests: list[bytes]) -> Features | None:
        """The features of the images in ``prompt``, which ``digests`` tell from others."""
        if prompt.patches is None or prompt.grid is None:
            return None
        with self._stoppable() as run_options:
            shrink_after(run_options)
            features = self._backend.features.encode(prompt.patches, prompt.grid, digests, run_options)
        trim()
        if len(features.main) != prompt.image_tokens:
            raise BackendError(
                f"the images have {len(features.main)} features for {prompt.image_tokens} places",
                code="internal_inconsistency",
            )
        return features

    def _read(self, prompt: Prompt, features: Features | None, positions: NDArray[np.int64]) -> Logits:
        """Read what is not in the cache yet, at ``positions`` [3, tokens]; return the last token's scores."""
        slots, decoder, filler = _image_slots(prompt.spans), self._backend.decoder, self._backend.filler
        filled = 0 if filler is None else filler.share(len(prompt.ids))
        logits: Logits | None = None
        for part in (*_chunks(0, filled), *_chunks(filled, len(prompt.ids))):
            embeddings = self._backend.embeddings(prompt.ids[part])
            deepstack = self._place(embeddings, features, slots - part.start)
            read = filler.fill if filler is not None and part.start < filled else decoder.run
            with self._stoppable() as run_options:
                assert self.cache is not None, "it was started"
                logits = read(self.cache, embeddings, positions[:, part], deepstack, run_options)
        assert logits is not None, "the decoder reads the last tokens"
        return logits

    def _place(
        self, embeddings: NDArray[np.float32], features: Features | None, slots: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Put features into ``embeddings`` [tokens, hidden] at ``slots``; return what DeepStack adds there.

        Slots before or behind these tokens belong to other chunks.
        """
        first, end = np.searchsorted(slots, [0, len(embeddings)])
        if features is None or first == end:
            return self._none(len(embeddings))
        filled = slots[first:end]
        embeddings[filled] = features.main[first:end]
        added = [np.zeros_like(embeddings) for _ in features.deepstack]
        for whole, feature in zip(added, features.deepstack, strict=True):
            whole[filled] = feature[first:end]
        return added

    def _none(self, tokens: int) -> list[NDArray[np.float32]]:
        decoder = self._backend.decoder
        return [np.zeros((tokens, decoder.hidden), np.float32)] * decoder.deepstack

    @contextmanager
    def _stoppable(self) -> Iterator[ort.RunOptions]:
        """Options for a run that `close` ends; what it raises then is BackendError ``cancelled``."""
        # options that were told to stop never run again, so each run has its own
        run_options = ort.RunOptions()
        with self._lock:
            self._check_open()
            self._running = run_options
        try:
            yield run_options
        except BackendError:
            self._check_open()
            raise
        finally:
            with self._lock:
                self._running = None
                if self._closed:
                    self._leave()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session was closed", code="cancelled")


def _check_patches(prompt: Prompt) -> None:
    patches = 0 if prompt.patches is None else len(prompt.patches)
    if patches != (0 if prompt.grid is None else prompt.grid.prod(1).sum()):
        raise BackendError(
            f"the prompt has {patches} patches, which do not fill its images",
            code="internal_inconsistency",
        )


def _chunks(first: int, end: int) -> list[slice]:
    """The tokens from ``first`` to ``end``, CHUNK at a time."""
    return [slice(start, min(start + CHUNK, end)) for start in range(first, end, CHUNK)]


def _image_slots(spans: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The places of the prompt that images fill, in order."""
    if spans is None or not len(spans):
        return np.empty(0, np.int64)
    return np.concatenate([np.arange(first, end) for first, end in spans])
