"""Models by name: find, pull, export, list and remove their folders."""

from __future__ import annotations

from router.models.exports import (
    SILENT,
    Listener,
    cached_export,
    cached_exports,
    ensure_export,
    export_to,
    exports_folder,
    remove_export,
)
from router.models.find import find
from router.models.home import home
from router.models.model import EMBEDDED, Model

__all__ = [
    "EMBEDDED",
    "SILENT",
    "Listener",
    "Model",
    "cached_export",
    "cached_exports",
    "ensure_export",
    "export_to",
    "exports_folder",
    "find",
    "home",
    "remove_export",
]
