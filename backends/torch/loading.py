"""Loading a checkpoint, or its vision tower alone, into PyTorch: where to, and in which numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from backends.base import BackendError, Runtime
from backends.machine import Processor, weight_format


def load(kind: type[PreTrainedModel], folder: Path, runtime: Runtime, prefix: str = "") -> Any:
    """A transformers model, ready to run, from the safetensors of ``folder`` that begin with ``prefix``.

    Code inside a checkpoint is never run. BackendError ``model_invalid`` says what cannot be read.
    """
    device = _device(runtime)
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, loaded = kind.from_pretrained(
            folder,
            dtype=_dtype(runtime, device, folder),
            key_mapping={f"^{prefix}".replace(".", r"\."): ""} if prefix else None,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _invalid(folder, first_line(error)) from error
    if missing := sorted(loaded["missing_keys"]):
        # transformers fills what is missing with random numbers
        raise _invalid(folder, f"there is no tensor '{prefix}{missing[0]}'")
    return model.eval().to(device)


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
