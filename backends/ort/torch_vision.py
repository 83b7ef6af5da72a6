"""The picture tower in PyTorch, for the "onnx" backend: the checkpoint's own weights, unrounded.

Import it only when it is asked for: PyTorch and transformers are an extra.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.utils import logging as transformers_logging

from backends.base import BackendError, Runtime
from backends.ort.features import Features
from backends.ort.vision import frames

_Rows = NDArray[np.float32]


class Stop(Protocol):
    """What onnxruntime's RunOptions has: set it from another thread to end a run."""

    terminate: bool


class TorchVisionEncoder:
    """The tower of a checkpoint folder, loaded without its language model; safe to use from many threads."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        """Load ``model.visual.*`` of a checkpoint folder; BackendError ``model_invalid`` says why not."""
        device = _device(runtime)
        if runtime.threads is not None:
            torch.set_num_threads(runtime.threads)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            tower, loaded = Qwen3VLVisionModel.from_pretrained(
                folder,
                dtype=_dtype(runtime, device),
                key_mapping={r"^model\.visual\.": ""},
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise _invalid(folder, str(error).strip().partition("\n")[0]) from error
        if missing := sorted(loaded["missing_keys"]):
            # transformers fills what is missing with random numbers
            raise _invalid(folder, f"there is no tensor 'model.visual.{missing[0]}'")
        self._tower: Any = tower.eval().to(device)
        self._asked = threading.local()
        for block in self._tower.blocks:
            block.register_forward_pre_hook(self._check)

    def encode(self, patches: _Rows, grid: NDArray[np.int64], run_options: Stop | None = None) -> Features:
        """Encode pictures of ``grid`` [images, 3] whose ``patches`` [patches, 1536] follow one another.

        BackendError ``cancelled`` when another thread sets ``run_options.terminate``: after the block that is
        being computed.
        """
        self._asked.stop = run_options
        merge = self._tower.config.spatial_merge_size
        parts = [self._one(picture, rows, columns) for picture, rows, columns in frames(patches, grid, merge)]
        main, *deepstack = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Features(main, tuple(deepstack))

    def _one(self, picture: _Rows, rows: int, columns: int) -> list[_Rows]:
        device = self._tower.device
        try:
            with torch.inference_mode():
                seen = self._tower(
                    torch.from_numpy(np.ascontiguousarray(picture)).to(device, self._tower.dtype),
                    grid_thw=torch.tensor([[1, rows, columns]], device=device),
                    return_dict=True,
                )
        except RuntimeError as error:
            text = str(error).strip().partition("\n")[0]
            raise BackendError(f"backend 'onnx': PyTorch's picture tower failed: {text}") from error
        return [part.float().cpu().numpy() for part in (seen.pooler_output, *seen.deepstack_features)]

    def _check(self, *_: Any) -> None:
        stop: Stop | None = getattr(self._asked, "stop", None)
        if stop is not None and stop.terminate:
            raise BackendError("the picture tower was told to stop", code="cancelled")


def _device(runtime: Runtime) -> torch.device:
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "PyTorch sees no CUDA device here; choose the device 'cpu'", code="backend_unavailable"
        )
    has_cuda = runtime.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if has_cuda else "cpu")


def _dtype(runtime: Runtime, device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it, else float32: the tower is small enough for it."""
    if runtime.dtype != "auto":
        return {"bf16": torch.bfloat16, "fp32": torch.float32}[runtime.dtype]
    fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _invalid(folder: Path, why: str) -> BackendError:
    return BackendError(f"PyTorch cannot load the picture tower of {folder}: {why}", code="model_invalid")
