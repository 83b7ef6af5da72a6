"""Models by name: find, pull, export, list and remove their folders.

::

    find(name)             a Model: the embedded one, a folder, an export in the cache, or of the hub
    pull(HubId)            the same as the hub has it now
    ensure_export(model)   the folder of its export, made on first use
    ensure_packed(export)  the weights as this machine multiplies by them, where that helps
    local_models()         what is on this machine; describe, remove_model
"""

from router.models.exports import (
    SILENT,
    Listener,
    cached_export,
    cached_exports,
    ensure_export,
    ensure_packed,
    export_place,
    export_to,
    exports_folder,
    exports_of,
    remove_export,
    source_of,
)
from router.models.hub import HubId, pull
from router.models.inventory import Entry, describe, find, find_folder, local_models, remove_model
from router.models.model import EMBEDDED, EMBEDDED_FOLDER, Model, home

__all__ = [
    "EMBEDDED",
    "EMBEDDED_FOLDER",
    "SILENT",
    "Entry",
    "HubId",
    "Listener",
    "Model",
    "cached_export",
    "cached_exports",
    "describe",
    "ensure_export",
    "ensure_packed",
    "export_place",
    "export_to",
    "exports_folder",
    "exports_of",
    "find",
    "find_folder",
    "home",
    "local_models",
    "pull",
    "remove_export",
    "remove_model",
    "source_of",
]
