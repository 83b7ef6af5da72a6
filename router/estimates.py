"""What an answer takes of memory and of time, known before anything is loaded.

`footprint` tells the memory from a model's files. `read_speeds` gives what was measured of its backends on
this machine: ``hybrid bench`` records it, ``hybrid route`` and the policy ``fastest`` read it. Another model,
recipe, machine, device or number of threads is another file, so a figure never speaks for what it was not
measured on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from backends.base import Runtime, Traits
from backends.machine import BYTES, Processor, usable_cores, weight_format
from backends.qwen3vl import Config, ImageLimits
from backends.store import Manifest, Recipe, Weights, recipe_fields
from router.models import Model, export_place, home, source_of

Verdict: TypeAlias = Literal["fits", "tight", "does not fit"]

TOKENS = 2048  # of the conversation that an estimate is for
PIXELS = 1 << 20  # of its image
TIGHT = 0.8  # of the free memory: an estimate may be a fifth off

_LIBRARIES_OF_EXPORTS = 110_000_000  # bytes: Python, this project and onnxruntime
_LIBRARIES_OF_CHECKPOINTS = 430_000_000  # the same with PyTorch and transformers
_TOWER = 100  # bytes for each patch and each value of the tower's width, while an image is encoded


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory, by what takes them."""

    libraries: int
    weights: int
    cache: int  # keys and values of TOKENS tokens
    image: int  # while an image of PIXELS, or the largest that the model reads, is encoded

    @property
    def total(self) -> int:
        """All of it."""
        return self.libraries + self.weights + self.cache + self.image

    def verdict(self, free: int) -> Verdict:
        """Whether ``free`` bytes hold it."""
        if self.total > free:
            return "does not fit"
        return "tight" if self.total > TIGHT * free else "fits"


def footprint(model: Model, traits: Traits, runtime: Runtime) -> Footprint:
    """What a backend takes with ``model`` on the processor: libraries + weights + cache + image.

    Weights of an export: the packed copies that onnxruntime makes, as large as the files; the files are read
    through the page cache, which is given back on demand and not counted. The vision tower's count where
    images are seen; where there is no export yet, what the default recipe is estimated to write.
    Weights of a checkpoint: 2 bytes each in bf16, 4 in fp32, as `weight_format` chooses. Cache: keys and
    values of every layer, in float32 or the weights' format. Picture: some 100 bytes for each patch and value
    of the tower's width. A backend of another package is taken to do as ours.
    BackendError ``model_invalid``: a file is missing or damaged.

    Checked on 2 cores without VNNI, the model's mapped file not counted: `scenes` 119 MB against a peak of
    115 on onnx, 447 against 452 on torch; a random model of 281 million weights 819 against 746 on onnx, on
    torch in fp32 2003 against 1749, in bf16 1374 against 1243.
    """
    config = Config.read(model.folder)
    if traits.reads_export:
        libraries, weights, width = _LIBRARIES_OF_EXPORTS, _export(model, traits.sees_images), 4
    else:
        width = BYTES[weight_format(model.folder, runtime.dtype, Processor.read())]
        libraries, weights = _LIBRARIES_OF_CHECKPOINTS, width * _count(model.folder)
    text = config.text
    cache = 2 * text.layers * text.kv_heads * text.head_dim * width * min(TOKENS, text.context)
    pixels = min(PIXELS, ImageLimits.read(model.folder).max_pixels)
    image = _TOWER * config.vision.hidden * pixels // config.vision.patch**2
    return Footprint(libraries, weights, cache, image if traits.sees_images else 0)


def _export(model: Model, sees_images: bool) -> int:
    """Bytes of the graphs and weights that the model's export has, or will have."""
    folder = model.folder if model.is_export else export_place(model, Recipe())
    if not folder.is_dir():
        # an answer from an export that is there needs no exporter
        from backends.export.sizes import estimate

        return estimate(model.folder, Recipe())
    files = [file for file in folder.iterdir() if file.suffix in (".onnx", ".data")]
    return sum(
        file.stat().st_size
        for file in files
        if sees_images or not file.name.startswith(("vision", "prefill"))
    )


def _count(folder: Path) -> int:
    return sum(map(prod, Weights(folder).shapes.values()))


FORMAT = 1

Points: TypeAlias = tuple[tuple[int, float], ...]  # how much of it at once, ascending; of it per second


@dataclass(frozen=True)
class Speed:
    """One backend's medians."""

    load_seconds: float
    prefill: Points  # prompt tokens, tokens per second
    decode: Points  # tokens of context, tokens per second
    vision: Points = ()  # patches of an image, patches per second; empty where images are not read

    def seconds(self, prompt_tokens: int, output_tokens: int, patches: tuple[int, ...] = ()) -> float | None:
        """How long an answer takes once the model is loaded; None where nothing tells.

        ``patches``: those of each image.
        """
        context = prompt_tokens + output_tokens // 2
        parts = [_interpolated(prompt_tokens, prompt_tokens, self.prefill)]
        parts += [_interpolated(output_tokens, context, self.decode)]
        parts += [_interpolated(count, count, self.vision) for count in patches]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def read_speeds(model: Model, runtime: Runtime, recipe: Recipe | None = None) -> Mapping[str, Speed]:
    """What is known, by backend; empty where nothing was measured, or the file cannot be read."""
    try:
        kept = json.loads(_place(model, runtime, recipe).read_text("utf-8"))
        return {name: _speed(fields) for name, fields in kept["speeds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # a cache: what is lost is measured again


def record_speeds(
    model: Model, runtime: Runtime, speeds: Mapping[str, Speed], recipe: Recipe | None = None
) -> Path:
    """Keep ``speeds``, over what was known of the same backends; return the file."""
    place = _place(model, runtime, recipe)
    known = {**read_speeds(model, runtime, recipe), **speeds}
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}.part")
    values = {"format": FORMAT, "model": model.name, "speeds": {n: asdict(s) for n, s in known.items()}}
    part.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    part.replace(place)
    return place


def _place(model: Model, runtime: Runtime, recipe: Recipe | None) -> Path:
    if model.is_export:
        manifest = Manifest.read(model.folder)
        source, recipe = manifest.source.fingerprint, manifest.recipe
    else:
        source, recipe = source_of(model).fingerprint, recipe or Recipe()
    threads = runtime.threads or usable_cores()
    key = [FORMAT, source, recipe_fields(recipe), _machine(), runtime.device, runtime.dtype, threads]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    return home() / "speeds" / f"{digest}.json"


def _machine() -> list[str]:
    """What tells this machine from another that has the same folder."""
    return [platform.node(), platform.machine(), Processor.read().name]


def _speed(fields: Mapping[str, object]) -> Speed:
    points = {name: _points(fields[name]) for name in ("prefill", "decode", "vision")}
    return Speed(float(fields["load_seconds"]), **points)  # type: ignore[arg-type]


def _points(values: object) -> Points:
    if not isinstance(values, list):
        raise TypeError("points are a list")
    return tuple((int(at), float(rate)) for at, rate in values)


def _interpolated(count: int, at: int, points: Points) -> float | None:
    """Seconds for ``count`` of something, at the rate it has at ``at``: read between the points."""
    if not count:
        return 0.0
    if not points:
        return None
    sizes, rates = zip(*points, strict=True)
    # a rate is seconds turned over; between two sizes it is the seconds of one that change evenly
    return count * float(np.interp(at, sizes, [1 / rate for rate in rates]))
