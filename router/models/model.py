"""A model: a folder, and the name it is known by; and where this project keeps what it makes of models."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from backends.store import MANIFEST

EMBEDDED = "scenes"
EMBEDDED_FOLDER = Path(__file__).parent.parent / EMBEDDED


@dataclass(frozen=True)
class Model:
    """A checkpoint folder or an export of one, and the name it is known by."""

    name: str
    folder: Path
    revision: str | None = None  # the hub's commit, where it came from there

    @property
    def is_export(self) -> bool:
        """Whether the folder is an export: ONNX graphs instead of a checkpoint's weights."""
        return (self.folder / MANIFEST).is_file()


def home() -> Path:
    """Where exports and notes of them are kept: HYBRID_HOME, else the user's cache folder of the platform.

    It need not exist yet.
    """
    if folder := os.environ.get("HYBRID_HOME"):
        return Path(folder).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hybrid"
    # the XDG base directory specification: a relative path is to be ignored
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (caches if caches.is_absolute() else Path.home() / ".cache") / "hybrid"
