"""A checkpoint converted by a peer's own tool: made once, and kept with its fidelity."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from backends.base import BackendError
from backends.store import MatrixError, write_folder
from router.bench.contenders import Fidelity
from router.bench.process import Process
from router.models import Listener, find, source_of

Tool: TypeAlias = Callable[[Path, Path], Sequence[MatrixError]]
"""Converts a checkpoint into a folder, reads that back, and says how far each matrix moved."""

_RECORD = "fidelity.json"


@dataclass(frozen=True)
class Converted:
    """A model as a peer reads it."""

    folder: Path
    fidelity: Fidelity

    @property
    def nbytes(self) -> int:
        """Of all its files."""
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())


def prepare(tool: Tool, checkpoint: Path, folder: Path, listener: Listener) -> Converted:
    """What ``tool`` makes, unless ``folder`` has it from this checkpoint; BackendError: the tool failed."""
    source = source_of(find(str(checkpoint), listener)).fingerprint
    if _source(folder) != source:
        listener.notice(f"making {folder}, which takes minutes")
        process = Process(partial(_convert, tool, checkpoint, folder, source), folder.name)
        try:
            process.call(None)
        finally:
            process.close()
    return Converted(folder, Fidelity(**json.loads((folder / _RECORD).read_bytes())["fidelity"]))


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a tool and keep what it says in ``log``; BackendError: it failed, with the last it said."""
    everything = {**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})}
    with log.open("wb") as said:
        done = subprocess.run(
            command, env=everything, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
    if done.returncode:
        lines = log.read_text("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise BackendError(f"its converter failed: {last:.300}; {log} has the rest")


def _source(folder: Path) -> str | None:
    """The fingerprint of the checkpoint that ``folder`` was made from."""
    record = folder / _RECORD
    return json.loads(record.read_bytes())["source"] if record.is_file() else None


def _convert(tool: Tool, checkpoint: Path, folder: Path, source: str, _: None) -> None:
    write_folder(
        folder,
        partial(_fill, tool=tool, checkpoint=checkpoint, source=source),
        bytes_needed=2 * sum(file.stat().st_size for file in checkpoint.glob("*.safetensors")),
        keep=lambda made: _source(made) == source,
    )


def _fill(folder: Path, *, tool: Tool, checkpoint: Path, source: str) -> None:
    fidelity = Fidelity.of(tool(checkpoint, folder))
    record = {"source": source, "fidelity": asdict(fidelity)}
    (folder / _RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
