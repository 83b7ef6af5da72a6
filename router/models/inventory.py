"""The models on this machine: found by name, listed, described, and removed from the cache that has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backends.base import RequestError
from backends.qwen3vl import check_kind
from backends.store import Fields, Manifest, check_checkpoint, check_sizes, recipe_fields
from router.models.exports import SILENT, Listener, cached_export, cached_exports, packed, remove_export
from router.models.hub import HubId, local, pull, pulled, remove_pulled
from router.models.model import EMBEDDED, EMBEDDED_FOLDER, Model


def find(name: str | None = None, listener: Listener = SILENT, *, offline: bool = False) -> Model:
    """The model called ``name``, checked: the embedded one (None or "scenes"), the folder of a Qwen3-VL
    checkpoint or of an export, an export in the cache, or a hub id ``org/name[@revision]``.

    A hub id that is not on this machine is pulled, unless ``offline``.
    RequestError ``model_not_found``: nothing is there. BackendError ``model_invalid``: damaged, or not safe.
    """
    if name is None or name == EMBEDDED:
        return Model(EMBEDDED, EMBEDDED_FOLDER)
    if (folder := find_folder(name)) is not None:
        return _checked(Model(folder.resolve().name, folder))
    if (hub_id := HubId.parse(name)) is None:
        raise RequestError(
            f"no model folder at '{name}'; give '{EMBEDDED}', the path of a Qwen3-VL checkpoint or export, "
            "or a hub id such as Qwen/Qwen3-VL-2B-Instruct",
            code="model_not_found",
            param="model",
        )
    return local(hub_id) or pull(hub_id, listener, offline=offline)


def find_folder(name: str) -> Path | None:
    """The folder at the path ``name``, or of the export in the cache that is called so, unchecked."""
    folder = Path(os.path.expanduser(name))  # Path's own raises for an unknown user
    return folder if name and folder.is_dir() else cached_export(name)


@dataclass(frozen=True)
class Entry:
    """One checkpoint or export."""

    name: str
    kind: Literal["checkpoint", "export", "damaged export"]
    path: Path
    size: int  # bytes, with what was made of it for this machine
    revision: str | None = None
    source: str | None = None  # what an export was made from
    recipe: dict[str, Any] | None = None

    def fields(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"path": str(self.path)}


def local_models() -> Iterator[Entry]:
    """The embedded model, what was pulled, and every export in the cache."""
    yield describe(find(EMBEDDED))
    yield from map(describe, pulled())
    for folder, manifest in cached_exports():
        yield _export(folder.name, folder, manifest)


def describe(model: Model) -> Entry:
    """The entry of a model that was found."""
    if model.is_export:
        return _export(model.name, model.folder, Manifest.read(model.folder))
    return Entry(model.name, "checkpoint", model.folder, _size(model.folder), model.revision)


def remove_model(name: str) -> int:
    """Remove an export or a pulled checkpoint from its cache; return the bytes freed.

    RequestError ``model_not_found``: no cache has it.
    """
    if (folder := cached_export(name)) is not None:
        freed = _size(folder) + _packed_size(folder)
        remove_export(name)
        return freed
    hub_id = HubId.parse(name)
    if hub_id is not None and (model := local(hub_id)) is not None:
        return remove_pulled(model)
    raise RequestError(
        f"'{name}' is not in a cache, so it is not removed; 'hybrid models list' names what can be",
        code="model_not_found",
        param="model",
    )


def _checked(model: Model) -> Model:
    if model.is_export:
        check_sizes(model.folder)
    else:
        config = model.folder / "config.json"
        if config.is_file():
            check_kind(Fields.read(config))  # says more than that its weights are not as ours are
        check_checkpoint(model.folder)
    return model


def _export(name: str, folder: Path, manifest: Manifest | None) -> Entry:
    if manifest is None:
        return Entry(name, "damaged export", folder, _size(folder) + _packed_size(folder))
    source, size = manifest.source, manifest.size + _packed_size(folder)
    return Entry(name, "export", folder, size, source.revision, source.name, recipe_fields(manifest.recipe))


def _packed_size(export: Path) -> int:
    return sum(map(_size, packed(export).made()))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
