"""Runs prefill.onnx: fills a session's cache with a long text, faster than the decoder reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.base import Runtime
from backends.onnx.cache import Cache, Floats
from backends.onnx.decoder import check_room, options
from backends.onnx.errors import named_errors
from backends.prefix_cache import TAIL

MODEL = "prefill.onnx"
LEAST = 128  # tokens from which it is faster than the decoder


class Filler:
    """prefill.onnx, loaded once; safe to run from many threads, each with its own cache."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        path = folder / MODEL
        with named_errors(f"{path} cannot be loaded", code="model_invalid"):
            self._session = ort.InferenceSession(path, _options(runtime), providers=["CPUExecutionProvider"])
        self._cached = [value.name for value in self._session.get_outputs()]

    def share(self, tokens: int) -> int:
        """How many of ``tokens`` it should read, from the first on; the decoder reads the others.

        At least TAIL are left: they are what is read again when the same prompt comes once more, and a token
        gets the same keys and values then.
        """
        return tokens - TAIL if tokens - TAIL >= LEAST else 0

    def fill(
        self,
        cache: Cache,
        embeddings: Floats,
        positions: NDArray[np.int64],
        deepstack: Sequence[Floats],
        run_options: ort.RunOptions,
    ) -> None:
        """Read tokens into ``cache``; arguments and errors as of `Decoder.run`."""
        total = cache.tokens + len(embeddings)
        check_room(cache, total)
        binding = self._bind(cache)
        inputs = {
            "inputs_embeds": embeddings[None],
            **{f"deepstack.{index}": feature[None] for index, feature in enumerate(deepstack)},
            "position_ids": positions[:, None],
            "seqlens_k": np.array([total - 1], np.int32),
            "total_sequence_length": np.array(total, np.int32),
        }
        for name, values in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(values))
        with named_errors("reading the prompt failed"):
            self._session.run_with_iobinding(binding, run_options)
        cache.tokens = total

    def _bind(self, cache: Cache) -> Any:
        assert cache.store is not None
        binding = self._session.io_binding()
        for present, array in zip(self._cached, cache.store.arrays, strict=True):
            value = ort.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(present.replace("present", "past_key_values"), value)
            binding.bind_ortvalue_output(present, value)
        return binding


def _options(runtime: Runtime) -> ort.SessionOptions:
    chosen = options(runtime)
    # onnxruntime would keep a memory plan for every length it has seen
    chosen.enable_mem_pattern = False
    # arranged once, the matrices would be copies of the file; arranged in every run they take a tenth longer
    chosen.add_session_config_entry("session.disable_prepacking", "1")
    return chosen
