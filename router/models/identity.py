"""What makes a model's export that export: the checkpoint's files, the recipe and the exporter."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from backends.export.recipe import Recipe
from backends.store.manifest import EXPORTER, Source, recipe_fields
from router.models.model import EMBEDDED, Model

_READ = 16 << 20  # bytes; a file up to this size is known by its content, a larger one by size and time
_SUFFIXES = (".json", ".jinja", ".safetensors", ".txt")


def source_of(model: Model) -> Source:
    """The checkpoint, as manifests name it; its fingerprint changes when one of its files does."""
    return Source(model.name, model.revision, _digest(_identity(model)))


def export_name(model: Model, recipe: Recipe) -> str:
    """The folder name of the export in the cache: readable, and another one for anything else."""
    key = _digest([_identity(model), EXPORTER, recipe_fields(recipe)])
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", model.name.rpartition("/")[2]).strip(".-") or "model"
    return f"{short}-{recipe.precision}-{recipe.recipe}-{key[:10]}"


def _identity(model: Model) -> list[Any]:
    if model.revision is not None:  # a commit of the hub never changes
        return [model.name, model.revision]
    place = EMBEDDED if model.name == EMBEDDED else str(model.folder.resolve())
    files = sorted(file for file in model.folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    return [place, *([file.name, *_state(file)] for file in files)]


def _state(file: Path) -> list[Any]:
    found = file.stat()
    if found.st_size > _READ:
        return [found.st_size, found.st_mtime_ns]
    return [found.st_size, hashlib.sha256(file.read_bytes()).hexdigest()]


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
