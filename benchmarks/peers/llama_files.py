"""Conversion of a checkpoint for llama.cpp: made once, kept with what it cost in fidelity."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from backends.base import BackendError
from backends.store import write_folder
from benchmarks.peers.gguf_errors import errors
from benchmarks.peers.gguf_files import write_text, write_vision
from router.bench.contenders import Fidelity
from router.bench.process import Process
from router.models import Listener, find, source_of

KINDS = {"Q4_0": 2, "Q4_K_M": 15}  # llama.h: LLAMA_FTYPE_MOSTLY_..
_VISION, _RECORD = "mmproj-F16.gguf", "fidelity.json"


@dataclass(frozen=True)
class Files:
    """What llama.cpp reads of one model."""

    text: Path
    vision: Path
    fidelity: Fidelity

    @property
    def nbytes(self) -> int:
        """Of both."""
        return self.text.stat().st_size + self.vision.stat().st_size


def prepare(checkpoint: Path, work: Path, kind: str, listener: Listener) -> Files:
    """The files of ``kind``, made in a process of its own unless ``work`` has them from this checkpoint."""
    folder = work / "llama.cpp"
    source = source_of(find(str(checkpoint), listener)).fingerprint
    if _source(folder) != source:
        listener.notice("converting for llama.cpp, which takes minutes")
        process = Process(partial(_convert, checkpoint, folder, source), "gguf")
        try:
            process.call(None)
        finally:
            process.close()
    record = json.loads((folder / _RECORD).read_bytes())
    return Files(folder / f"{kind}.gguf", folder / _VISION, Fidelity(**record[kind]))


def _source(folder: Path) -> str | None:
    """The fingerprint of the checkpoint that ``folder`` was made from."""
    record = folder / _RECORD
    return json.loads(record.read_bytes())["source"] if record.is_file() else None


def _convert(checkpoint: Path, folder: Path, source: str, _: None) -> None:
    weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    write_folder(
        folder,
        partial(_fill, checkpoint=checkpoint, source=source),
        bytes_needed=2 * weights,
        keep=lambda made: _source(made) == source,
    )


def _fill(folder: Path, *, checkpoint: Path, source: str) -> None:
    plain = folder / "BF16.gguf"
    write_text(plain, checkpoint)
    write_vision(folder / _VISION, checkpoint)
    vision = errors(folder / _VISION, checkpoint, vision=True)
    record: dict[str, object] = {"source": source}
    for kind in KINDS:
        file = folder / f"{kind}.gguf"
        _quantize(plain, file, kind)
        record[kind] = asdict(Fidelity.of([*errors(file, checkpoint, vision=False), *vision]))
    plain.unlink()
    (folder / _RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _quantize(plain: Path, file: Path, kind: str) -> None:
    """As llama.cpp does by itself: which matrices get more bits is its own choice."""
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(silent, None)  # it tells of every matrix
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = KINDS[kind]
    settings.nthread = len(os.sched_getaffinity(0))
    if llama_cpp.llama_model_quantize(os.fsencode(plain), os.fsencode(file), settings):
        raise BackendError(f"llama.cpp could not make {file.name}")
