"""Runs vision.onnx: images of any sizes in, their features and DeepStack features out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.base import BackendError, Runtime
from backends.onnx.decoder import int8_options, providers
from backends.onnx.errors import named_errors
from backends.onnx.features import Features
from backends.qwen3vl import VisionConfig, vision_positions

_Rows = NDArray[np.float32]


class VisionEncoder:
    """vision.onnx, loaded once; safe to run from many threads.

    For the 2B tower a patch takes some 100 KB while it runs: 0.4 GB at 1024 x 1024 pixels, 7 GB at the 16.8
    megapixels that preprocessing allows. From 1024 x 1024 on, attention is most of the work and four times as
    many patches take some sixteen times as long; a stop waits for one layer's attention.
    """

    def __init__(self, folder: Path, config: VisionConfig, runtime: Runtime) -> None:
        """Load ``folder``'s tower; BackendError ``model_invalid`` says why it cannot be."""
        self._config = config
        path = folder / "vision.onnx"
        with named_errors(f"{path} cannot be loaded", code="model_invalid"):
            self._session = ort.InferenceSession(
                path, int8_options(runtime), providers=providers(runtime.device)
            )
        self._outputs = ["features", *(f"deepstack.{index}" for index in range(len(config.deepstack)))]
        written = {value.name: value.shape[-1] for value in self._session.get_outputs()}
        if written != dict.fromkeys(self._outputs, config.out_hidden):
            raise BackendError(
                f"{path} does not belong to its config.json; export the model again", code="model_invalid"
            )

    def encode(
        self, patches: _Rows, grid: NDArray[np.int64], run_options: ort.RunOptions | None = None
    ) -> Features:
        """Encode images of ``grid`` [images, 3] whose ``patches`` [patches, 1536] follow one another.

        Each image is a run of its own: memory is that of the largest, and its neighbours do not change what
        comes out. BackendError ends the run when another thread sets ``run_options.terminate``.
        """
        parts = [
            self._run(image, rows, columns, run_options)
            for image, rows, columns in frames(patches, grid, self._config.merge)
        ]
        main, *deepstack = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Features(main, tuple(deepstack))

    def _run(self, image: _Rows, rows: int, columns: int, run_options: ort.RunOptions | None) -> list[_Rows]:
        placed = vision_positions(rows, columns, self._config)
        inputs = {
            "patches": image[None],
            "indices": np.ascontiguousarray(placed.indices.T),
            "weights": np.ascontiguousarray(placed.weights.T[..., None]),
            "cos": placed.cos,
            "sin": placed.sin,
        }
        with named_errors("the vision tower failed"):
            return [part[0] for part in self._session.run(self._outputs, inputs, run_options)]


def frames(patches: _Rows, grid: NDArray[np.int64], merge: int) -> Iterator[tuple[_Rows, int, int]]:
    """Each frame's patches, rows and columns; BackendError ``internal_inconsistency`` if they do not fit."""
    if grid.ndim != 2 or not len(grid) or grid.shape[1] != 3 or grid.min() < 1 or (grid[:, 1:] % merge).any():
        raise _inconsistent(f"grids are {grid.tolist()}; need t, h, w with h and w multiples of {merge}")
    if int(grid.prod(1).sum()) != len(patches):
        raise _inconsistent(
            f"grids {grid.tolist()} have {int(grid.prod(1).sum())} patches, got {len(patches)}"
        )
    first = 0
    for times, rows, columns in grid.tolist():
        for _ in range(times):
            yield patches[first : first + rows * columns], rows, columns
            first += rows * columns


def _inconsistent(what: str) -> BackendError:
    return BackendError(f"the images do not fit their grids: {what}", code="internal_inconsistency")
