"""Refuse a checkpoint folder that is damaged or not safe, before anything of it is loaded."""

from __future__ import annotations

from pathlib import Path

from backends.base import BackendError
from backends.store.weights import Weights


def check_checkpoint(folder: Path) -> None:
    """BackendError ``model_invalid`` unless there is a config.json and every weights file is whole.

    Whole: there, as long as its header says, and safetensors, since pickles can run code.
    """
    if not (folder / "config.json").is_file():
        raise BackendError(
            f"{folder} has no config.json: it is not a checkpoint folder", code="model_invalid"
        )
    Weights(folder)  # reads the headers
