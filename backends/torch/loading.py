"""Loading a checkpoint, or its vision tower alone, into PyTorch: where to, and in which numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from backends.base import BackendError, Runtime
from backends.machine import Processor, weight_format
from backends.store import Weights


def load(kind: type[PreTrainedModel], folder: Path, runtime: Runtime, prefix: str = "") -> Any:
    """A transformers model, ready to run, from the tensors of ``folder`` that begin with ``prefix``.

    Which those are `Weights` says. Code inside a checkpoint is never run. BackendError ``model_invalid`` says
    what cannot be read.
    """
    weights = Weights(folder)
    device = _device(runtime)
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        config = kind.config_class.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if not prefix:
            config.tie_word_embeddings = weights.ties_head
        names = [name for name in weights.names if name.startswith(prefix)]
        if not prefix and weights.ties_head:
            names = [name for name in names if name != "lm_head.weight"]
        model, loaded = kind.from_pretrained(
            None,
            config=config,
            dtype=_dtype(runtime, device, folder),
            state_dict={name.removeprefix(prefix): _Unread(weights, name) for name in names},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _invalid(folder, first_line(error)) from error
    for name, _, shape in sorted(loaded["mismatched_keys"]):
        weights.expect(prefix + name, tuple(shape))
    if missing := sorted(loaded["missing_keys"]):
        # transformers fills what is missing with random numbers
        raise _invalid(folder, f"there is no tensor '{prefix}{missing[0]}'")
    return model.eval().to(device)


@dataclass(frozen=True)
class _Unread:
    """A tensor that is read when transformers slices it, as it slices those of safetensors."""

    weights: Weights
    name: str

    def __getitem__(self, _: Any) -> torch.Tensor:
        raw, stored = self.weights.read_stored(self.name)
        if stored == "BF16":
            return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(raw)


class Stopping:
    """Ends a forward pass between two of its layers when another thread says so; knows threads apart."""

    def __init__(self, layers: Iterable[torch.nn.Module]) -> None:
        self._thread = threading.local()
        for layer in layers:
            layer.register_forward_pre_hook(self._check)

    @contextmanager
    def when(self, stopped: Callable[[], bool]) -> Iterator[None]:
        """Inside, this thread's passes raise BackendError ``cancelled`` once ``stopped`` is true."""
        self._thread.stopped = stopped
        try:
            yield
        finally:
            self._thread.stopped = None

    def _check(self, *_: Any) -> None:
        stopped: Callable[[], bool] | None = getattr(self._thread, "stopped", None)
        if stopped is not None and stopped():
            raise BackendError("PyTorch was told to stop", code="cancelled")


def first_line(error: Exception) -> str:
    """What PyTorch says of an error, without the lines that speak to its developers."""
    return str(error).strip().partition("\n")[0]


def _device(runtime: Runtime) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if runtime.device == "cuda" and not has_cuda:
        raise BackendError(
            "PyTorch sees no CUDA device here; choose the device 'cpu'", code="backend_unavailable"
        )
    return torch.device("cuda" if has_cuda and runtime.device != "cpu" else "cpu")


def _dtype(runtime: Runtime, device: torch.device, folder: Path) -> torch.dtype:
    """As `weight_format` says; a CUDA device has bf16."""
    if runtime.dtype == "auto" and device.type == "cuda":
        return torch.bfloat16
    chosen = weight_format(folder, runtime.dtype, Processor.read())
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[chosen]


def _invalid(folder: Path, why: str) -> BackendError:
    return BackendError(f"PyTorch cannot load {folder}: {why}", code="model_invalid")
