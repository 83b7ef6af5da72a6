"""What a figure was measured on: the machine, the libraries, and this package itself."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from backends.machine import total_memory, usable_cores
from backends.processor import Processor

PACKAGES = (
    "hybrid-router",
    "onnxruntime",
    "onnxruntime-genai",
    "torch",
    "transformers",
    "numpy",
    "tokenizers",
    "pillow",
)
# what decides how fast small numbers are multiplied
_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Machine:
    """A computer, as far as it decides how fast it is."""

    cpu: str
    cores: int  # that this process may use
    all_cores: int
    memory_bytes: int | None
    cache_bytes: int | None  # of the largest cache
    instructions: tuple[str, ...]
    system: str

    @classmethod
    def read(cls) -> Machine:
        """This one."""
        processor = Processor.read()
        return cls(
            cpu=processor.name or processor.architecture,
            cores=usable_cores(),
            all_cores=os.cpu_count() or 1,
            memory_bytes=total_memory(),
            cache_bytes=_cache_bytes(),
            instructions=tuple(name for name in _INSTRUCTIONS if processor.has(name)),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
        )


def versions() -> Mapping[str, str]:
    """Of Python and of every package that takes part and is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(root: Path | None = None) -> str | None:
    """The git commit of this package's code, with ``+`` where it was changed since; None outside a clone."""
    root = root or Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return None
    head, changes = _git(root, "rev-parse", "--short=12", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    return None if head is None else head + ("+" if changes else "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cache_bytes() -> int | None:
    units = {"K": 1 << 10, "M": 1 << 20}
    try:
        sizes = [file.read_text().strip() for file in _CACHES.glob("index*/size")]
        return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=None)
    except (OSError, ValueError, KeyError, IndexError):
        return None
