"""What a model takes of memory while a backend answers with it, told from its files; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

from backends.base import PATCH, Capability, Runtime
from backends.export.recipe import Recipe
from backends.export.sizes import estimate
from backends.processor import Processor
from backends.qwen3vl.config import Config
from backends.qwen3vl.images import Limits
from backends.store.weights import Weights
from backends.weight_format import BYTES, weight_format
from router.models import Model, export_place

Verdict: TypeAlias = Literal["fits", "tight", "does not fit"]

TOKENS = 2048  # of the conversation that an estimate is for
PIXELS = 1 << 20  # of its picture
TIGHT = 0.8  # of the free memory: an estimate may be a fifth off

_LIBRARIES_OF_EXPORTS = 110_000_000  # bytes: Python, this project and onnxruntime
_LIBRARIES_OF_CHECKPOINTS = 430_000_000  # the same with PyTorch and transformers
_TOWER = 100  # bytes for each patch and each value of the tower's width, while a picture is encoded


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory, by what takes them."""

    libraries: int
    weights: int
    cache: int  # keys and values of TOKENS tokens
    picture: int  # while a picture of PIXELS, or the largest that the model reads, is encoded

    @property
    def total(self) -> int:
        """All of it."""
        return self.libraries + self.weights + self.cache + self.picture

    def verdict(self, free: int) -> Verdict:
        """Whether ``free`` bytes hold it."""
        if self.total > free:
            return "does not fit"
        return "tight" if self.total > TIGHT * free else "fits"


def footprint(model: Model, can: Capability, runtime: Runtime) -> Footprint:
    """What a backend takes with ``model`` on the processor: libraries + weights + cache + picture.

    Weights of an export: the packed copies that onnxruntime makes, as large as the files; the files are read
    through the page cache, which is given back on demand and not counted. The picture tower's count where
    pictures are seen; where there is no export yet, what the default recipe is estimated to write.
    Weights of a checkpoint: 2 bytes each in bf16, 4 in fp32, as `weight_format` chooses. Cache: keys and
    values of every layer, in float32 or the weights' format. Picture: some 100 bytes for each patch and value
    of the tower's width. A backend of another package is taken to do as ours.
    BackendError ``model_invalid``: a file is missing or damaged.

    Checked on 2 cores without VNNI, the model's mapped file not counted: `scenes` 119 MB against a peak of
    115 on onnx, 447 against 452 on torch; a random model of 281 million weights 819 against 746 on onnx, on
    torch in fp32 2003 against 1749, in bf16 1374 against 1243.
    """
    config = Config.read(model.folder)
    if can.reads_export:
        libraries, weights, width = _LIBRARIES_OF_EXPORTS, _export(model, can.sees_images), 4
    else:
        width = BYTES[weight_format(model.folder, runtime.dtype, Processor.read())]
        libraries, weights = _LIBRARIES_OF_CHECKPOINTS, width * _count(model.folder)
    text = config.text
    cache = 2 * text.layers * text.kv_heads * text.head_dim * width * min(TOKENS, text.context)
    pixels = min(PIXELS, Limits.read(model.folder).max_pixels)
    picture = _TOWER * config.vision.hidden * pixels // PATCH**2
    return Footprint(libraries, weights, cache, picture if can.sees_images else 0)


def _export(model: Model, sees_images: bool) -> int:
    """Bytes of the graphs and weights that the model's export has, or will have."""
    folder = model.folder if model.is_export else export_place(model, Recipe())
    if not folder.is_dir():
        return estimate(model.folder, Recipe())
    files = [file for file in folder.iterdir() if file.suffix in (".onnx", ".data")]
    return sum(
        file.stat().st_size
        for file in files
        if sees_images or not file.name.startswith(("vision", "prefill"))
    )


def _count(folder: Path) -> int:
    weights = Weights(folder)
    return sum(prod(weights.shape(name)) for name in weights.names)
