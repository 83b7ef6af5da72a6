"""The vision tower in PyTorch, for the "onnx" backend: the checkpoint's own weights, unrounded.

Import it only when it is asked for: PyTorch and transformers are an extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from backends.base import BackendError, Runtime
from backends.onnx.features import Features
from backends.onnx.vision import frames
from backends.torch.loading import Stopping, first_line, load

_Rows = NDArray[np.float32]


class StopFlag(Protocol):
    """What onnxruntime's RunOptions has: set it from another thread to end a run."""

    terminate: bool


class TorchVisionEncoder:
    """The tower of a checkpoint folder, loaded without its language model; safe to use from many threads."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        """Load ``model.visual.*`` of a checkpoint folder; BackendError ``model_invalid`` says why not."""
        self._tower = load(Qwen3VLVisionModel, folder, runtime, prefix="model.visual.")
        self._stopping = Stopping(self._tower.blocks)

    def encode(
        self, patches: _Rows, grid: NDArray[np.int64], run_options: StopFlag | None = None
    ) -> Features:
        """Encode images of ``grid`` [images, 3] whose ``patches`` [patches, 1536] follow one another.

        BackendError ``cancelled`` when another thread sets ``run_options.terminate``: after the block that is
        being computed.
        """
        merge = self._tower.config.spatial_merge_size
        with self._stopping.when(lambda: run_options is not None and run_options.terminate):
            parts = [self._one(image, rows, columns) for image, rows, columns in frames(patches, grid, merge)]
        main, *deepstack = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Features(main, tuple(deepstack))

    def _one(self, image: _Rows, rows: int, columns: int) -> list[_Rows]:
        device = self._tower.device
        try:
            with torch.inference_mode():
                output = self._tower(
                    torch.from_numpy(np.ascontiguousarray(image)).to(device, self._tower.dtype),
                    grid_thw=torch.tensor([[1, rows, columns]], device=device),
                    return_dict=True,
                )
        except RuntimeError as error:
            text = first_line(error)
            raise BackendError(f"backend 'onnx': PyTorch's vision tower failed: {text}") from error
        return [part.float().cpu().numpy() for part in (output.pooler_output, *output.deepstack_features)]
