"""The "genai" backend: an export's text.onnx on onnxruntime-genai, loaded once, and its sessions.

A session has its generator, which grows by being read anew, and a way to be stopped from another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError, Logits, Prefilled, Prompt, Runtime, Traits
from backends.genai.library import GenaiGenerator, GenaiModel, named_errors
from backends.machine import LoadedHere, usable_cores
from backends.prefix_cache import KEPT_BYTES, CachedPrefix, PrefixCache
from backends.qwen3vl import Config, TextConfig


class GenaiBackend:
    """An export on onnxruntime-genai; its sessions share the weights and nothing else."""

    name = "genai"
    traits = Traits(sees_images=False, reads_export=True)
    device, dtype = "cpu", "float32"  # whatever the weights are held in

    def __init__(self, model: GenaiModel, config: TextConfig, kept_bytes: int = KEPT_BYTES) -> None:
        self.context = config.context
        self.vocab = config.vocab
        self.model = model
        self.token_bytes = 8 * config.layers * config.kv_heads * config.head_dim  # float32, keys and values
        self.caches: PrefixCache[GenaiGenerator] = PrefixCache(kept_bytes)
        self.turn = threading.Lock()  # the library is not made for two threads at once
        self.loaded = LoadedHere()

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> GenaiBackend:
        """Load an export folder; BackendError says which file is missing or damaged."""
        config = Config.read(folder).text
        for name in ("genai_config.json", "text.onnx", "weights.data"):
            if not (folder / name).is_file():
                raise BackendError(
                    f"{folder / name} is missing; export the model again", code="model_invalid"
                )
        options = {
            "intra_op_num_threads": runtime.threads or usable_cores(),
            "inter_op_num_threads": 1,
            # as in backends.onnx.decoder
            "session.intra_op.allow_spinning": "1",
            "session.force_spinning_stop": "1",
            "log_severity_level": 4,  # what goes wrong comes as an exception
        }
        with named_errors(f"{folder / 'text.onnx'} cannot be loaded", code="model_invalid"):
            return cls(GenaiModel(runtime.packed or folder, options), config, runtime.kept_bytes)

    def open(self, capacity: int) -> GenaiSession:
        """Start a session of at most ``capacity`` tokens."""
        return GenaiSession(self, capacity)


CHUNK = 512  # tokens of a prompt read in one run, as on onnx; in between others have their turn

# A generator fills the memory of its longest sequence with zeros when it is made, half a millisecond a token
# for the 2B model, so it has room for an answer of ROOM tokens at first, and for the next turns if the answer
# is short. One that was kept is gone on with if it has room for ENOUGH; an answer that needs more is read
# again into one of twice the length.
ROOM = 1024
ENOUGH = 256


class GenaiSession:
    """One generation of at most ``capacity`` tokens.

    `close` may come from another thread, also in the middle of a `prefill` or `decode`: that one then stops
    within a second and raises BackendError ``cancelled``.
    """

    def __init__(self, backend: GenaiBackend, capacity: int) -> None:
        self._backend = backend
        self._capacity = capacity
        self._generator: GenaiGenerator | None = None
        self.ids: list[int] = []  # what the generator has read
        self._closed = False
        self.computing = False
        self._lock = threading.Lock()

    def prefill(self, prompt: Prompt) -> Prefilled:
        """Read the prompt, a chunk at a time, from where a kept generator ends."""
        if prompt.image_tokens or not len(prompt.ids):
            raise BackendError(
                "backend 'genai' reads text, and was given an image or nothing",
                code="internal_inconsistency",
            )
        count = len(prompt.ids)
        room = self._capacity - count
        with self._lock:
            self._leave()
        kept = self._backend.caches.take(
            CachedPrefix(prompt.ids), fits=lambda generator: generator.max_length >= count + min(room, ENOUGH)
        )
        if kept is None:
            length = count + max(min(room, ROOM), ENOUGH)
            return Prefilled(self._read_anew(prompt.ids, min(length, self._backend.context)))
        generator, cached = kept
        with self._turn(generator):
            generator.rewind(cached)
            self.ids = prompt.ids[:cached].tolist()
        return Prefilled(self._read(prompt.ids[cached:]), cached_tokens=cached)

    def decode(self, token: int) -> Logits:
        """Read one token."""
        assert self._generator is not None or self._closed, "a prefill comes first"
        if self._generator is not None and len(self.ids) == self._generator.max_length < self._capacity:
            ids = np.array([*self.ids, token])
            return self._read_anew(ids, min(self._capacity, 2 * len(self.ids)))
        return self._read(np.array([token]))

    def close(self) -> None:
        """Stop what is running, and leave the generator to those that go on from it."""
        with self._lock:
            self._closed = True
            if not self.computing:
                self._leave()
            elif self._generator is not None:
                self._generator.terminate()

    def _read_anew(self, ids: NDArray[np.int64], length: int) -> Logits:
        """Read ``ids`` into a generator with room for ``length`` tokens."""
        self._generator = None  # its memory goes before the next one's comes
        with self._backend.turn, named_errors("there is no memory for the answer"):
            self._generator, self.ids = GenaiGenerator(self._backend.model, length), []
        return self._read(ids)

    def _read(self, ids: NDArray[np.int64]) -> Logits:
        """Read ``ids`` after what was read; return the scores after the last."""
        self._check(ids)
        for first in range(0, len(ids), CHUNK):
            part = ids[first : first + CHUNK]
            with self._turn(self._generator) as generator:
                generator.append(part)
                self.ids += part.tolist()
                logits = generator.logits()
        return logits

    def _check(self, ids: NDArray[np.int64]) -> None:
        if len(self.ids) + len(ids) > self._capacity:
            raise BackendError(
                f"the session was opened for {self._capacity} tokens and is to hold "
                f"{len(self.ids) + len(ids)}",
                code="internal_inconsistency",
            )
        if not 0 <= ids.min() <= ids.max() < self._backend.vocab:
            raise BackendError(
                f"a token id is outside 0 to {self._backend.vocab - 1}", code="internal_inconsistency"
            )

    @contextmanager
    def _turn(self, generator: GenaiGenerator | None) -> Iterator[GenaiGenerator]:
        """Alone in the library with ``generator``; what `close` ends raises BackendError ``cancelled``."""
        self._backend.loaded.check()
        with self._backend.turn:
            with self._lock:
                self._check_open()
                assert generator is not None
                self._generator, self.computing = generator, True
            try:
                with named_errors("it failed"):
                    yield generator
            except BackendError:
                self._check_open()
                self._generator = None  # what it holds now is not known
                raise
            finally:
                with self._lock:
                    self.computing = False
                    if self._closed:
                        generator.rewind(len(self.ids))
                        self._leave()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session was closed", code="cancelled")

    def _leave(self) -> None:
        """Give the generator away, with what it holds; the caller has the lock."""
        if self._generator is not None and self.ids:
            nbytes = self._generator.max_length * self._backend.token_bytes
            self._backend.caches.give(CachedPrefix(np.array(self.ids)), self._generator, nbytes)
        self._generator = None
