"""Where this project keeps what it makes: HYBRID_HOME, else the user's cache folder of the platform."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """The folder; it need not exist yet."""
    if said := os.environ.get("HYBRID_HOME"):
        return Path(said).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hybrid"
    # the XDG base directory specification: a relative path is to be ignored
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (caches if caches.is_absolute() else Path.home() / ".cache") / "hybrid"
