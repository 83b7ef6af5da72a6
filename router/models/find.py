"""Find a model's folder by its name."""

from __future__ import annotations

import os
from pathlib import Path

from backends.base import RequestError
from backends.store import check_sizes
from router.models import hub
from router.models.exports import SILENT, Listener, cached_export
from router.models.hub import check_checkpoint
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
    if (wanted := hub.HubId.parse(name)) is None:
        raise RequestError(
            f"no model folder at '{name}'; give '{EMBEDDED}', the path of a Qwen3-VL checkpoint or export, "
            "or a hub id such as Qwen/Qwen3-VL-2B-Instruct",
            code="model_not_found",
            param="model",
        )
    return hub.local(wanted) or hub.pull(wanted, listener, offline=offline)


def find_folder(name: str) -> Path | None:
    """The folder at the path ``name``, or of the export in the cache that is called so, unchecked."""
    folder = Path(os.path.expanduser(name))  # Path's own raises for an unknown user
    return folder if name and folder.is_dir() else cached_export(name)


def _checked(model: Model) -> Model:
    if model.is_export:
        check_sizes(model.folder)
    else:
        check_checkpoint(model.folder)
    return model
