"""The packed variant of an export: graphs over weights that are mapped as this machine multiplies by them.

Its decoder.onnx and text.onnx name the same blobs, so that the onnx and the genai backend hold the weights
once between them, and so do all processes. It takes twice the weights' place on disk: onnxruntime wants them
as they were, too.

Decoding reads all weights for each token. From pages of 2 MB instead of 4 KiB that took 2 to 3 % less time
(benchmarks/results/tried.md): the processor looks up a 512th as many. Linux maps a file by huge pages where
its cache holds it in such. It does where the file is read for a mapping that asks for them, on file systems
that can (ext4 since 6.16, xfs, btrfs), and every later mapping has them then, that of onnxruntime too.
"""

from __future__ import annotations

import glob
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import BackendError, Device
from backends.machine import Processor
from backends.store import (
    MANIFEST,
    Manifest,
    Progress,
    check_folder,
    remember,
    remove_folder,
    sha256,
    write_folder,
)

WEIGHTS = "weights.data"
GRAPHS = ("decoder.onnx", "text.onnx")

_NOTE = "packed.json"
_ROOM = 2.5  # of the weights' size: themselves, at most 1.15 times that in blobs, and what is aside meanwhile
# instruction sets by which onnxruntime may choose an order, by how their names begin
_SETS = ("sse", "ssse", "avx", "amx", "fma", "asimd", "sve", "i8mm", "bf16")


@dataclass(frozen=True)
class Variant:
    """Where the packed variant of an export stands in a folder of such, or will, for this machine."""

    export: Path
    place: Path

    @property
    def folder(self) -> Path:
        """The folder that backends load; another processor's, in a shared place, is another one."""
        return self.place / f"{self._stem}-{_digest(*_instruction_sets())}"

    def ensure(self, progress: Progress, notice: Callable[[str], None]) -> Path:
        """The folder, made or made again unless it is whole and from this export and onnxruntime.

        ``notice`` is told before that, or before it waits for another process. BackendError ``disk_full``,
        ``not_writable``, ``model_invalid``: the export has no manifest, ``backend_unavailable``: nothing can
        be packed here.
        """
        target, note = self.folder, self._note()
        if self._is_usable(target, note):
            return target
        self._remove_orphans()
        doing = f"arranging the weights of {self.export.name} for this processor"

        def fill(part: Path) -> None:
            notice(f"{doing}, once")
            self._fill(part, note, progress)

        written = write_folder(
            target,
            fill,
            bytes_needed=int(_ROOM * (self.export / WEIGHTS).stat().st_size),
            keep=lambda folder: self._is_usable(folder, note),
            on_wait=lambda: notice(f"another process is {doing}; waiting for it"),
        )
        if written:
            remember(target, Manifest.read(target), self._seen(target))
            drop(target / WEIGHTS)
        return target

    def fetch(self) -> None:
        """Read the blobs into the system's cache before they are mapped; see `backends.onnx.packed`."""
        fetch(self.folder / WEIGHTS, (self.export / WEIGHTS).stat().st_size)

    def made(self) -> list[Path]:
        """What is there of the export, this machine's and other processors'."""
        return sorted(self.place.glob(f"{glob.escape(self._stem)}-????????"))

    def remove(self) -> None:
        """Remove what is there; what has it open keeps it."""
        for folder in self.made():
            self._remove(folder)

    @property
    def _stem(self) -> str:
        return f"{self.export.name}-{_digest(str(self.export.resolve()))}"

    def _remove(self, folder: Path) -> None:
        remove_folder(folder)
        self._seen(folder).unlink(missing_ok=True)

    def _remove_orphans(self) -> None:
        """Remove the variants of exports that are gone."""
        for note in self.place.glob(f"*/{_NOTE}"):
            with suppress(BackendError, OSError, ValueError, KeyError):
                if not Path(json.loads(note.read_bytes())["folder"]).is_dir():
                    self._remove(note.parent)

    def _note(self) -> dict[str, str]:
        Manifest.read(self.export)  # refuses one that is damaged or not there
        return {
            "folder": str(self.export.resolve()),
            "export": sha256(self.export / MANIFEST),
            "onnxruntime": _onnxruntime().__version__,
        }

    def _is_usable(self, folder: Path, note: dict[str, str]) -> bool:
        if not folder.is_dir():
            return False
        try:
            check_folder(folder, self._seen(folder))
            return bool(json.loads((folder / _NOTE).read_bytes()) == note)
        except (BackendError, OSError, ValueError):
            return False

    def _seen(self, folder: Path) -> Path:
        return self.place / f".{folder.name}.json"

    def _fill(self, part: Path, note: dict[str, str], progress: Progress) -> None:
        # onnx takes half a second to import, and most starts find everything made
        import onnx

        from backends.onnx.blobs import append_blobs, name_blobs

        models = {name: onnx.load(self.export / name, load_external_data=False) for name in GRAPHS}
        # what the graphs name of it, and the table of embeddings, stays where it is: the blobs come behind
        shutil.copyfile(self.export / WEIGHTS, part / WEIGHTS)
        blobs = append_blobs(models[GRAPHS[0]], self.export, part / WEIGHTS, progress)
        for name, model in models.items():
            name_blobs(model, blobs)
            (part / name).write_bytes(model.SerializeToString(deterministic=True))
        shutil.copyfile(self.export / "genai_config.json", part / "genai_config.json")
        (part / _NOTE).write_text(json.dumps(note), "utf-8")
        whole = Manifest.read(self.export)
        Manifest.describe(part, whole.source, whole.recipe, whole.matrices).write(part)


def helps(device: Device) -> bool:
    """Whether the weights are multiplied by the processor, and not by a graphics card's copy."""
    if device != "auto":
        return device == "cpu"
    return "CUDAExecutionProvider" not in _onnxruntime().get_available_providers()


def _onnxruntime() -> Any:
    import onnxruntime  # where models are only listed or removed it is not needed

    return onnxruntime


def _instruction_sets() -> list[str]:
    processor = Processor.read()
    named = sorted(name for name in processor.features or () if name.startswith(_SETS))
    return [processor.architecture, *named]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


WINDOW = 64 << 20  # bytes mapped at once: what is mapped counts as this process's memory
POPULATE_READ = 22  # MADV_POPULATE_READ in Linux's mman-common.h, since 5.14; Python has no name for it


def drop(file: Path) -> None:
    """Let the cache forget ``file``, which is on the disk: what was just written is there in small pages."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fetch(file: Path, first: int = 0) -> None:
    """Read ``file`` from byte ``first`` on into the cache; where the system has no huge pages, do nothing."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    with file.open("rb") as stream, suppress(OSError):
        size = os.fstat(stream.fileno()).st_size
        for start in range(first // WINDOW * WINDOW, size, WINDOW):
            length = min(WINDOW, size - start)
            with mmap.mmap(stream.fileno(), length, prot=mmap.PROT_READ, offset=start) as window:
                window.madvise(mmap.MADV_HUGEPAGE)
                window.madvise(POPULATE_READ)
