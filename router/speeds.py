"""What was measured of a model's backends on this machine: kept on disk, read by policies and estimates.

``hybrid bench`` records; ``hybrid route`` and the policy ``fastest`` read. Another model, recipe, machine,
device or number of threads is another file, so a figure never speaks for what it was not measured on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from backends.base import Runtime
from backends.export.recipe import Recipe
from backends.machine import usable_cores
from backends.processor import Processor
from backends.store.manifest import Manifest, recipe_fields
from router.models import Model, home
from router.models.identity import source_of

FORMAT = 1

Points: TypeAlias = tuple[tuple[int, float], ...]  # how much of it at once, ascending; of it per second


@dataclass(frozen=True)
class Speed:
    """One backend's medians."""

    load_seconds: float
    prefill: Points  # prompt tokens, tokens per second
    decode: Points  # tokens of context, tokens per second
    vision: Points = ()  # patches of a picture, patches per second; empty where pictures are not read

    def seconds(self, prompt_tokens: int, output_tokens: int, patches: tuple[int, ...] = ()) -> float | None:
        """How long an answer takes once the model is loaded; None where nothing tells.

        ``patches``: those of each picture.
        """
        context = prompt_tokens + output_tokens // 2
        parts = [_seconds(prompt_tokens, prompt_tokens, self.prefill)]
        parts += [_seconds(output_tokens, context, self.decode)]
        parts += [_seconds(count, count, self.vision) for count in patches]
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


def _seconds(count: int, at: int, points: Points) -> float | None:
    """Seconds for ``count`` of something, at the rate it has at ``at``: read between the points."""
    if not count:
        return 0.0
    if not points:
        return None
    sizes, rates = zip(*points, strict=True)
    # a rate is seconds turned over; between two sizes it is the seconds of one that change evenly
    return count * float(np.interp(at, sizes, [1 / rate for rate in rates]))
