"""The vision tower: vision.onnx over its own vision.data.

::

    tower      the graph, from patches to features and DeepStack features
    linear     its matrices in one of three precisions
    rotation   the same tower in a basis that is easier to round to 8 bits
"""

from __future__ import annotations

from pathlib import Path

from backends.export.graph import DataFile, Graph
from backends.export.vision.linear import Linears
from backends.export.vision.rotation import Rotated
from backends.export.vision.tower import Tower
from backends.qwen3vl import VisionConfig
from backends.store import MatrixError, Recipe, VisionPrecision, Weights

__all__ = ["write"]


def write(out: Path, weights: Weights, config: VisionConfig, recipe: Recipe) -> list[MatrixError]:
    """Write ``vision.onnx`` and ``vision.data`` into the folder ``out``; return each rounded matrix's error.

    BackendError ``model_invalid`` names a tensor that is missing or has another shape.
    """
    precision = _precision(recipe)
    tensors = weights if precision == "fp32" else Rotated(weights, config)
    with DataFile(out / "vision.data") as data:
        graph = Graph("vision", data)
        linears = Linears(graph, tensors, precision)
        Tower(graph, tensors, config, linears).build()
    graph.save(out / "vision.onnx")
    return linears.errors


def _precision(recipe: Recipe) -> VisionPrecision:
    # a float32 decoder is the parity reference, and so is its tower
    return recipe.vision_precision or ("fp32" if recipe.precision == "fp32" else "int8")
