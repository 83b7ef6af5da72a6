"""Runs decoder.onnx: embeddings and positions in, scores out, each session's cache written in place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.base import BackendError, Device, Logits, Runtime
from backends.machine import LoadedHere, Processor, usable_cores
from backends.onnx.cache import Cache, CacheStore, Floats, copy_row
from backends.onnx.errors import named_errors

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def providers(device: Device) -> list[str]:
    """Where onnxruntime shall compute; BackendError when CUDA is asked for and the package has none."""
    has_cuda = _CUDA in ort.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise BackendError(
            "this onnxruntime has no CUDA; install onnxruntime-gpu in its place, or choose the device 'cpu'",
            code="backend_unavailable",
        )
    return [_CUDA, _CPU] if has_cuda and device != "cpu" else [_CPU]


def options(runtime: Runtime) -> ort.SessionOptions:
    """Session options for one backend that computes at a time, in ``runtime.threads`` threads."""
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = runtime.threads or _threads()
    chosen.inter_op_num_threads = 1
    # threads that spin between two operators make decoding half as fast again; past the end of a run they
    # would only take the cores from the vision tower, the sampler and everyone else
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "1")
    chosen.add_session_config_entry("session.force_spinning_stop", "1")
    chosen.log_severity_level = 3  # errors; they come as exceptions too
    return chosen


def int8_options(runtime: Runtime) -> ort.SessionOptions:
    """Session options for a graph of int8 products whose runs differ in size: sums are right everywhere."""
    chosen = options(runtime)
    # onnxruntime would keep a memory plan for every size it has seen
    chosen.enable_mem_pattern = False
    if not Processor.read().sums_whole:
        # exact, and slower by a fifth; matrices that are unsigned already stay as they are
        chosen.add_session_config_entry("session.x64quantprecision", "1")
    return chosen


def _threads() -> int:
    """The cores this process may use, or 0, the library's own choice, when those are all of them."""
    usable = usable_cores()
    return 0 if usable == os.cpu_count() else usable


class Decoder:
    """decoder.onnx, loaded once; safe to run from many threads, each with its own cache."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        chosen = providers(runtime.device)
        with named_errors(f"{folder / 'decoder.onnx'} cannot be loaded", code="model_invalid"):
            self.session = ort.InferenceSession(folder / "decoder.onnx", options(runtime), providers=chosen)
        self._loaded = LoadedHere()
        self.device = "cuda" if self.session.get_providers()[0] == _CUDA else "cpu"
        if runtime.device == "cuda" and self.device != "cuda":
            # onnxruntime goes on with the processor and only logs why
            raise BackendError(
                "onnxruntime cannot use CUDA here; check the driver, or choose the device 'cpu'",
                code="backend_unavailable",
            )
        inputs = {value.name: value for value in self.session.get_inputs()}
        self.hidden = int(inputs["inputs_embeds"].shape[-1])
        self.deepstack = sum(name.startswith("deepstack.") for name in inputs)
        self.notes = dict(self.session.get_modelmeta().custom_metadata_map)
        self._cached = [name for name in inputs if name.startswith("past_key_values.")]
        _, self._kv_heads, _, self._head_dim = inputs[self._cached[0]].shape

    def cache(self, capacity: int) -> Cache:
        """An empty cache; on the processor its memory is taken as it fills."""
        shape = (1, self._kv_heads, capacity, self._head_dim)
        if self.device == "cpu":
            store = self.store(1, capacity)
            return Cache(capacity, self.bind(store.arrays), store=store)
        values = [
            ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self.device, 0) for _ in self._cached
        ]
        return Cache(capacity, self._bind(values))

    def store(self, rows: int, capacity: int) -> CacheStore:
        """Memory for the keys and values of ``rows`` sessions."""
        return CacheStore.of(len(self._cached), (rows, self._kv_heads, capacity, self._head_dim))

    def copy(self, cache: Cache, tokens: int, capacity: int) -> Cache:
        """A cache of its own with the first ``tokens`` of ``cache``; on the processor only."""
        copied = self.cache(capacity)
        assert copied.store is not None
        assert cache.store is not None
        copy_row(cache.store.arrays, 0, copied.store.arrays, 0, tokens)
        copied.tokens = tokens
        return copied

    def bind(self, arrays: Sequence[Floats]) -> Any:
        """A binding of ``arrays`` [rows, kv_heads, capacity, head_dim] for runs of that many rows."""
        return self._bind([ort.OrtValue.ortvalue_from_numpy(array) for array in arrays])

    def run(
        self,
        cache: Cache,
        embeddings: Floats,
        positions: NDArray[np.int64],
        deepstack: Sequence[Floats],
        run_options: ort.RunOptions,
    ) -> Logits:
        """Read ``embeddings`` [tokens, hidden] at ``positions`` [3, tokens]; return the last one's scores.

        ``deepstack``: an array like ``embeddings`` for each DeepStack input. BackendError: the cache is full,
        or onnxruntime failed; after an error the cache holds what it held before.
        """
        count = len(embeddings)
        total = cache.tokens + count
        check_room(cache, total)
        inputs = {
            "inputs_embeds": embeddings[None],
            **{f"deepstack.{index}": feature[None] for index, feature in enumerate(deepstack)},
            "position_ids": positions[:, None],
            "last": np.array([[count - 1]]),
        }
        scores: Logits = self._run(cache.binding, inputs, np.array([total]), run_options)[0]
        cache.tokens = total
        return scores

    def step(
        self,
        binding: Any,
        embeddings: Floats,
        positions: NDArray[np.int64],
        held: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """One token for each row: ``embeddings`` [rows, 1, hidden] at ``positions`` [3, rows, 1].

        ``held`` [rows]: tokens in each row before. Returns the scores [rows, vocab].
        """
        rows = len(embeddings)
        inputs = {
            "inputs_embeds": embeddings,
            **{f"deepstack.{index}": np.zeros_like(embeddings) for index in range(self.deepstack)},
            "position_ids": positions,
            "last": np.zeros((rows, 1), np.int64),
        }
        return self._run(binding, inputs, held + 1, ort.RunOptions())

    def _bind(self, values: Sequence[Any]) -> Any:
        binding = self.session.io_binding()
        for past, value in zip(self._cached, values, strict=True):
            # one array as past and as present: a run writes the new tokens in place
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(past.replace("past_key_values", "present"), value)
        return binding

    def _run(
        self, binding: Any, inputs: Mapping[str, Any], totals: NDArray[np.int64], run_options: ort.RunOptions
    ) -> NDArray[np.float32]:
        """``totals`` [rows]: tokens in each row after the run."""
        self._loaded.check()
        for name, values in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(values))
        binding.bind_cpu_input("seqlens_k", (totals - 1).astype(np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(totals.max(), np.int32))
        binding.bind_output("logits")
        with named_errors("the decoder failed"):
            self.session.run_with_iobinding(binding, run_options)
        # outputs come in the order in which they were bound: the scores after the cache
        scores: NDArray[np.float32] = np.array(binding.get_outputs()[-1].numpy(), np.float32)
        return scores


def check_room(cache: Cache, tokens: int) -> None:
    """BackendError when a session is to hold more than it was opened for."""
    if not 0 < tokens <= min(cache.limit, cache.capacity):
        raise BackendError(
            f"the session was opened for {cache.limit} tokens and is to hold {tokens}",
            code="internal_inconsistency",
        )
