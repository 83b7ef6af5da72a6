"""Checkpoint folder -> ONNX folder: numpy and onnx only, tensor by tensor.

::

    graph        ONNX graphs written by hand over a data file of tensors
    quantize     matrices rounded to a few bits; matrices, columns, head: stored, and multiplied by
    body         the language model's layers; graphs: decoder.onnx, prefill.onnx and text.onnx
    vision       the tower: vision.onnx
    calibration  rounding that knows the inputs
    sizes        what an export takes on disk and in memory
"""

from __future__ import annotations

import shutil
from pathlib import Path

from backends.base import RequestError
from backends.export.calibration.samples import ImageEncoder, Samples
from backends.qwen3vl import Config
from backends.store import MatrixError, Progress, Recipe, Weights, companions

__all__ = ["ImageEncoder", "MatrixError", "Progress", "Recipe", "Samples", "export"]


def export(
    source: Path,
    out: Path,
    recipe: Recipe,
    progress: Progress | None = None,
    samples: Samples | None = None,
) -> list[MatrixError]:
    """Write the graphs of checkpoint ``source`` into the empty folder ``out``; return each matrix's error.

    ``progress`` is told the tensor being read, bytes read so far, and bytes of the checkpoint; ``samples`` is
    what a recipe that says ``calibrate`` is calibrated on, and for no other. BackendError
    ``model_invalid``: the checkpoint is not a whole Qwen3-VL. OSError: ``out`` cannot be written.
    """
    # onnx takes half a second to import, and every start imports this package
    from backends.export import graphs, vision
    from backends.export.body import DecoderBody
    from backends.export.calibration.matrices import CalibratedMatrices
    from backends.export.graph import DataFile
    from backends.export.matrices import Matrices

    config = Config.read(source)
    if any(layer not in range(config.text.layers) for layer in recipe.int8_layers):
        raise RequestError(
            f"int8_layers must be from 0 to {config.text.layers - 1}, got {sorted(recipe.int8_layers)}",
            param="int8_layers",
        )
    if recipe.calibrate != (samples is not None):
        raise RequestError("an export is calibrated on samples; give both or none", param="calibrate")
    weights = Weights(source, progress)
    # before the language model, which is calibrated on what the tower makes of images
    tower = vision.write(out, weights, config.vision, recipe)
    with DataFile(out / "weights.data") as data:
        matrices = (
            Matrices(weights, data, recipe.accuracy_level)
            if samples is None
            else CalibratedMatrices(weights, data, recipe, config, samples, out)
        )
        body = DecoderBody(weights, config.text, recipe, matrices)
        graphs.write_decoder(out, body, data, len(config.vision.deepstack))
        graphs.write_text(out, body, data, source)
    errors = matrices.errors
    if recipe.prefill_precision is not None:
        errors = errors + graphs.write_prefill(out, weights, config.text, len(config.vision.deepstack))
    for name in companions([file.name for file in source.iterdir() if file.is_file()]):
        shutil.copyfile(source / name, out / name)
    return errors + tower
