"""Models by name: find, pull, export, list and remove their folders."""

from __future__ import annotations

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
)
from router.models.find import find, find_folder
from router.models.model import EMBEDDED, Model, home

__all__ = [
    "EMBEDDED",
    "SILENT",
    "Listener",
    "Model",
    "cached_export",
    "cached_exports",
    "ensure_export",
    "ensure_packed",
    "export_place",
    "export_to",
    "exports_folder",
    "exports_of",
    "find",
    "find_folder",
    "home",
    "remove_export",
]
