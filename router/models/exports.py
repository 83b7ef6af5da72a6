"""Exports on disk: made on first use or on request, whole or not at all, one process at a time.

An export in the cache is named by what it was made from and how: model, precision, recipe, and ten
hexadecimal digits of the sha256 of the checkpoint's identity, the exporter's number and every field of the
recipe. The identity of a checkpoint is the hub's commit, or else its folder and each of its files, small ones
by content and large ones by size and time. So another checkpoint, recipe or exporter gets another folder.

An export's packed variant, its weights as this machine multiplies by them, is made on first use too, where it
helps: `ensure_packed`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from backends.base import BackendError, Device, RequestError
from backends.onnx.packed import WEIGHTS, Variant, helps
from backends.qwen3vl import left_out
from backends.store import (
    EXPORTER,
    MANIFEST,
    SMALL,
    Manifest,
    MatrixError,
    Progress,
    Recipe,
    Source,
    check_folder,
    recipe_fields,
    remember,
    remove_folder,
    remove_leftovers,
    write_folder,
)
from router.models.model import EMBEDDED, Model, home

WORTH = 64 << 20  # bytes of weights; fewer of them are soon packed in memory
_SUFFIXES = (".json", ".jinja", ".safetensors", ".txt")  # of the files that make a checkpoint what it is

Exporter: TypeAlias = Callable[[Path, Path, Recipe, Progress], Sequence[MatrixError]]


@dataclass(frozen=True)
class Listener:
    """Whom to tell how a long step goes on."""

    progress: Progress = lambda _name, _done, _total: None
    notice: Callable[[str], None] = lambda _text: None


SILENT = Listener()


def exports_folder() -> Path:
    """Where exports are kept."""
    return home() / "exports"


def export_place(model: Model, recipe: Recipe) -> Path:
    """Where in the cache the model's export of this recipe stands, or will."""
    return exports_folder() / export_name(model, recipe)


def export_name(model: Model, recipe: Recipe) -> str:
    """The folder name of the export in the cache: readable, and another one for anything else."""
    key = _digest([_identity(model), EXPORTER, recipe_fields(recipe)])
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", model.name.rpartition("/")[2]).strip(".-") or "model"
    return f"{short}-{recipe.precision}-{recipe.recipe}-{key[:10]}"


def ensure_export(
    model: Model,
    recipe: Recipe | None = None,
    listener: Listener = SILENT,
    *,
    wait: bool = True,
    exporter: Exporter | None = None,
) -> Path:
    """The folder of the model's export, checked; made now if it is not in the cache yet.

    BackendError: ``disk_full``, ``locked`` (only if not ``wait``), ``model_invalid`` ...
    """
    if model.is_export:
        _check_recipe(check_folder(model.folder, _seen(model.folder)), model, recipe)
        return model.folder
    recipe = recipe or Recipe()
    target = export_place(model, recipe)
    if not _intact(target, SILENT):
        export_to(target, model, recipe, listener, wait=wait, exporter=exporter)
    return target


def export_to(
    target: Path,
    model: Model,
    recipe: Recipe,
    listener: Listener = SILENT,
    *,
    force: bool = False,
    wait: bool = True,
    exporter: Exporter | None = None,
) -> bool:
    """Make ``target`` the export of a checkpoint; False when it is that already and ``force`` is not said."""
    # an answer from an export that is there needs no exporter
    from backends.export.sizes import check_memory, estimate
    from router.prompt import PromptBuilder

    if model.is_export:
        raise RequestError(
            f"{model.folder} is an export already; name the checkpoint it was made from", param="source"
        )
    in_cache = target.parent == exports_folder()
    if in_cache:
        remove_leftovers(target.parent)
    else:
        _check_target(target, model, recipe, force=force)
    if exporter is None:
        PromptBuilder.read(model.folder)  # what could not answer is not worth reading its weights
    check_memory(model.folder, recipe)
    written = write_folder(
        target,
        partial(_fill, model=model, recipe=recipe, listener=listener, exporter=exporter),
        bytes_needed=estimate(model.folder, recipe),
        keep=lambda folder: not force and _intact(folder, listener),
        wait=wait,
        on_wait=lambda: listener.notice(f"another process is exporting {model.name}; waiting for it"),
    )
    if written:
        remember(target, Manifest.read(target), _seen(target))
    return written


def ensure_packed(export: Path, device: Device, listener: Listener) -> Path | None:
    """The export's packed variant, made on first use; None where it does not help or cannot be made."""
    try:
        if (export / WEIGHTS).stat().st_size < WORTH or not helps(device):
            return None
        variant = packed(export)
        folder = variant.ensure(listener.progress, listener.notice)
        variant.fetch()
        return folder
    except (BackendError, OSError) as error:
        listener.notice(f"each backend holds weights of its own: {error}")
        return None


def packed(export: Path) -> Variant:
    """Where the packed variant of an export stands, or would."""
    return Variant(export, home() / "packed")


def cached_exports() -> Iterator[tuple[Path, Manifest | None]]:
    """Every export in the cache, with its manifest; None when that cannot be read."""
    folder = exports_folder()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            try:
                yield path, Manifest.read(path)
            except BackendError:
                yield path, None


def exports_of(model: Model) -> list[Path]:
    """The exports in the cache that were made from this checkpoint as it is now."""
    source = source_of(model)
    return [folder for folder, manifest in cached_exports() if manifest and manifest.source == source]


def cached_export(name: str) -> Path | None:
    """The folder of the export called ``name`` in the cache."""
    folder = exports_folder() / name
    plain = name and Path(name).name == name and not name.startswith(".")
    return folder if plain and folder.is_dir() else None


def remove_export(name: str) -> Path:
    """Remove an export from the cache; what has it open keeps it. RequestError: it is not there."""
    if (folder := cached_export(name)) is None:
        raise RequestError(
            f"there is no export '{name}' in {exports_folder()}; see: hybrid models list",
            code="model_not_found",
            param="model",
        )
    packed(folder).remove()
    remove_folder(folder)
    _seen(folder).unlink(missing_ok=True)
    return folder


def source_of(model: Model) -> Source:
    """The checkpoint, as manifests name it; its fingerprint changes when one of its files does."""
    return Source(model.name, model.revision, _digest(_identity(model)))


def _fill(part: Path, *, model: Model, recipe: Recipe, listener: Listener, exporter: Exporter | None) -> None:
    if exporter is None:
        for text in left_out(model.folder):
            listener.notice(text)
    matrices = (exporter or _exporter(model, recipe))(model.folder, part, recipe, listener.progress)
    Manifest.describe(part, source_of(model), recipe, matrices).write(part)


def _exporter(model: Model, recipe: Recipe) -> Exporter:
    import backends.export
    from router.models.calibration import samples

    if not recipe.calibrate:
        return backends.export.export
    return partial(backends.export.export, samples=samples(model.folder))


def _intact(folder: Path, listener: Listener) -> bool:
    """Whether an export can be used as it is; ``listener`` hears of a damaged one."""
    if not folder.is_dir():
        return False
    try:
        check_folder(folder, _seen(folder))
    except BackendError as error:
        listener.notice(f"{error}; making it again")
        return False
    return True


def _check_target(target: Path, model: Model, recipe: Recipe, *, force: bool) -> None:
    """Never replace what is not an export, and an export of something else only when told to."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / MANIFEST).is_file():
        raise RequestError(f"{target} is there and is not an export; give a new folder", param="out")
    if not force:
        there = Manifest.read(target)
        if (there.source, there.recipe, there.exporter) != (source_of(model), recipe, EXPORTER):
            raise RequestError(
                f"{target} is another export, of {there.source.name}; add --force to replace it", param="out"
            )


def _check_recipe(manifest: Manifest, model: Model, recipe: Recipe | None) -> None:
    if recipe is not None and recipe != manifest.recipe:
        raise RequestError(
            f"{model.folder} was exported with other settings ({manifest.recipe.precision}, "
            f"{manifest.recipe.recipe}); name the checkpoint to export it anew",
            param="recipe",
        )


def _seen(folder: Path) -> Path:
    """The file that remembers which files of an export were read and found right."""
    return home() / "seen" / (hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:20] + ".json")


def _identity(model: Model) -> list[Any]:
    if model.revision is not None:  # a commit of the hub never changes
        return [model.name, model.revision]
    location = EMBEDDED if model.name == EMBEDDED else str(model.folder.resolve())
    files = sorted(file for file in model.folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    return [location, *([file.name, *_state(file)] for file in files)]


def _state(file: Path) -> list[Any]:
    status = file.stat()
    if status.st_size > SMALL:
        return [status.st_size, status.st_mtime_ns]
    return [status.st_size, hashlib.sha256(file.read_bytes()).hexdigest()]


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
