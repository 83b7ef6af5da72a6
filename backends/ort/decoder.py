"""Runs decoder.onnx: embeddings and positions in, scores out, each session's cache written in place."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.base import BackendError, Device, Logits, Runtime
from backends.ort.failures import named_errors, out_of_memory
from backends.process import LoadedHere, usable_cores

_Floats: TypeAlias = NDArray[np.float32]

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


def _threads() -> int:
    """The cores this process may use, or 0, the library's own choice, when those are all of them."""
    usable = usable_cores()
    return 0 if usable == os.cpu_count() else usable


@dataclass(eq=False)
class Cache:
    """One session's keys and values, room for ``capacity`` tokens, and what is bound to a run."""

    capacity: int
    binding: Any
    tokens: int = 0  # held so far
    limit: int = 0  # tokens that the session which has it may fill
    arrays: list[_Floats] = field(default_factory=list)  # [1, kv_heads, capacity, head_dim] each

    @property
    def nbytes(self) -> int:
        """Bytes in memory: of the tokens held, since the system lends pages on first use."""
        return sum(array.nbytes for array in self.arrays) * self.tokens // self.capacity


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
        """An empty cache; memory is taken as it fills, where the system lends pages on first use."""
        cache = Cache(capacity, self.session.io_binding())
        shape = (1, self._kv_heads, capacity, self._head_dim)
        for past in self._cached:
            value = self._empty(shape, cache)
            # one array as past and as present: a run writes the new tokens in place
            cache.binding.bind_ortvalue_input(past, value)
            cache.binding.bind_ortvalue_output(past.replace("past_key_values", "present"), value)
        return cache

    def copy(self, cache: Cache, tokens: int, capacity: int) -> Cache:
        """A cache of its own with the first ``tokens`` of ``cache``; on the processor only."""
        copied = self.cache(capacity)
        for array, source in zip(copied.arrays, cache.arrays, strict=True):
            array[:, :, :tokens] = source[:, :, :tokens]
        copied.tokens = tokens
        return copied

    def _empty(self, shape: tuple[int, ...], cache: Cache) -> Any:
        if self.device != "cpu":
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self.device, 0)
        # a map of its own: its pages are lent on first use, and go back to the system with it
        try:
            pages = mmap.mmap(-1, 4 * math.prod(shape))
        except OSError as error:
            raise out_of_memory() from error
        array = np.frombuffer(pages, np.float32).reshape(shape)
        cache.arrays.append(array)
        return ort.OrtValue.ortvalue_from_numpy(array)

    def run(
        self,
        cache: Cache,
        embeddings: NDArray[np.float32],
        places: NDArray[np.int64],
        deepstack: Sequence[NDArray[np.float32]],
        how: ort.RunOptions,
    ) -> Logits:
        """Read ``embeddings`` [tokens, hidden] at ``places`` [3, tokens]; return the scores after the last.

        ``deepstack``: an array like ``embeddings`` for each DeepStack input. BackendError: the cache is full,
        or onnxruntime failed; after an error the cache holds what it held before.
        """
        count = len(embeddings)
        total = cache.tokens + count
        if not 0 < total <= min(cache.limit, cache.capacity):
            raise BackendError(
                f"the session was opened for {cache.limit} tokens and is to hold {total}",
                code="internal_inconsistency",
            )
        self._loaded.check()
        binding = cache.binding
        binding.bind_cpu_input("inputs_embeds", embeddings[None])
        for index, feature in enumerate(deepstack):
            binding.bind_cpu_input(f"deepstack.{index}", feature[None])
        binding.bind_cpu_input("position_ids", np.ascontiguousarray(places[:, None]))
        binding.bind_cpu_input("seqlens_k", np.array([total - 1], np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(total, np.int32))
        binding.bind_cpu_input("last", np.array([[count - 1]], np.int64))
        binding.bind_output("logits")
        with named_errors("the decoder failed"):
            self.session.run_with_iobinding(binding, how)
        cache.tokens = total
        # outputs come in the order in which they were bound: the scores after the cache
        return np.array(binding.get_outputs()[-1].numpy()[0], np.float32)
