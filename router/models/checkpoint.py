"""Refuse a checkpoint folder that is damaged or not safe, before anything of it is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from backends.base import BackendError

_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own cap for its JSON header


def check_checkpoint(folder: Path) -> None:
    """BackendError ``model_invalid`` unless there is a config.json and every weights file is whole.

    Whole: there, as long as its header says, and safetensors, since pickles can run code.
    """
    if not (folder / "config.json").is_file():
        raise BackendError(
            f"{folder} has no config.json: it is not a checkpoint folder", code="model_invalid"
        )
    index = folder / "model.safetensors.index.json"
    for shard in _shards(index) if index.is_file() else ["model.safetensors"]:
        file = folder / shard
        if file.parent != folder:
            raise BackendError(f"{index} points outside its folder: {shard!r}", code="model_invalid")
        if not file.is_file():
            raise BackendError(
                f"{file} is missing; only safetensors weights are loaded, download the checkpoint again",
                code="model_invalid",
            )
        _check_length(file)


def _shards(index: Path) -> list[str]:
    """The files that an index names."""
    try:
        files = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(index, "it names no files") from None
    if not files or not all(isinstance(file, str) for file in files):
        raise _damaged(index, "it names no files")
    return sorted(files)


def _check_length(file: Path) -> None:
    actual = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        (header_bytes,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
        if not 2 <= header_bytes <= min(_HEADER_LIMIT, actual - 8):
            raise _damaged(file, f"{actual} bytes, without a readable header")
        try:
            header = json.loads(stream.read(header_bytes))
            end = max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _damaged(file, "its header cannot be read") from None
    expected = 8 + header_bytes + end
    if actual != expected:
        raise _damaged(file, f"{actual} bytes, {expected} expected")


def _damaged(file: Path, problem: str) -> BackendError:
    return BackendError(f"{file} is damaged ({problem}); download it again", code="model_invalid")
