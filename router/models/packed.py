"""Packed variants of exports: the weights as this machine multiplies by them, mapped and shared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import BackendError, Device
from backends.onnx.packed import WEIGHTS, Variant, helps
from router.models.home import home

if TYPE_CHECKING:
    from router.models.exports import Listener

WORTH = 64 << 20  # bytes of weights; fewer of them are soon packed in memory


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
