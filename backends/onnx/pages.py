"""A file's pages in the system's cache: huge ones, where the system has them for files.

Decoding reads all weights for each token. From pages of 2 MB instead of 4 KiB that took 2 to 3 % less time
(benchmarks/results/tried.md): the processor looks up a 512th as many. Linux maps a file by huge pages where
its cache holds it in such. It does where the file is read for a mapping that asks for them, on file systems
that can (ext4 since 6.16, xfs, btrfs), and every later mapping has them then, that of onnxruntime too.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

_WINDOW = 64 << 20  # bytes mapped at once: what is mapped counts as this process's memory
_POPULATE_READ = 22  # MADV_POPULATE_READ in Linux's mman-common.h, since 5.14; Python has no name for it


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
        for start in range(first // _WINDOW * _WINDOW, size, _WINDOW):
            length = min(_WINDOW, size - start)
            with mmap.mmap(stream.fileno(), length, prot=mmap.PROT_READ, offset=start) as window:
                window.madvise(mmap.MADV_HUGEPAGE)
                window.madvise(_POPULATE_READ)
