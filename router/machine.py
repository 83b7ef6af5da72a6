"""What a figure was measured on: the machine, the libraries, and this package itself."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

from backends.export.sizes import MEMORY
from backends.machine import Processor, available_memory, total_memory, usable_cores
from router.models import home

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


EXPORT = 1_900_000_000  # bytes of disk asked for to export the 2B shape by the default recipe


@dataclass(frozen=True)
class InstructionSet:
    """One that matters for speed, whether the processor has it, and what it costs not to have it."""

    name: str
    present: bool | None  # None: the system does not tell
    without: str


@dataclass(frozen=True)
class Disk:
    """Where exports are kept, and how much more fits there."""

    home: Path
    free: int  # bytes
    writable: bool


@dataclass(frozen=True)
class HostMachine:
    """What every backend finds here."""

    system: str
    python: str
    processor: str
    architecture: str
    instruction_sets: tuple[InstructionSet, ...]
    cores_usable: int
    cores_present: int
    memory_total: int | None  # bytes; None: the system does not tell
    memory_available: int | None  # bytes that a process can take now without swapping
    disk: Disk

    @classmethod
    def read(cls) -> HostMachine:
        """This machine as it is now."""
        processor = Processor.read()
        return cls(
            system=platform.platform(),
            python=platform.python_version(),
            processor=processor.name,
            architecture=processor.architecture,
            instruction_sets=instruction_sets(processor),
            cores_usable=usable_cores(),
            cores_present=os.cpu_count() or usable_cores(),
            memory_total=total_memory(),
            memory_available=available_memory(),
            disk=disk(home()),
        )

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do about it; nothing where all is well."""
        there, said = self.disk, []
        if not there.writable:
            said += [f"nothing can be written in {there.home}: set HYBRID_HOME to a folder of your own"]
        elif there.free < EXPORT:
            said += [
                f"exporting the 2B model takes {EXPORT / 1e9:g} GB of disk: make room, or set HYBRID_HOME"
            ]
        if self.memory_available is not None and self.memory_available < MEMORY:
            said += ["exporting a model takes 1 GB of memory: close other programs"]
        return tuple(said)


# Linux's names of each, and what is lost without it. Which of onnxruntime's kernels a set brings is read from
# its mlas/lib/platform.cpp; where nothing was measured, no figure is given.
_X86 = (
    ("AVX2", ("avx2",), "no INT4 kernels: matrices are unpacked to float32 for each product, far slower"),
    ("AVX-512", ("avx512f",), "products take 8 numbers at a time, not 16"),
    (
        "VNNI",
        ("avx512_vnni", "avx_vnni"),
        "INT4 and int8 products take three steps, not one; images a fifth longer, to keep sums exact",
    ),
    (
        "AVX512-BF16",
        ("avx512_bf16",),
        "torch computes in float32 where that fits: slower, and twice the memory",
    ),
    ("AMX", ("amx_int8",), "images are read without int8 tiles; few processors have them"),
)
_ARM = (
    ("dotprod", ("asimddp",), "no int8 kernels for INT4 matrices: products in float32, far slower"),
    ("i8mm", ("i8mm",), "int8 products go row by row: prompts and images are read slower"),
    ("bf16", ("bf16",), "torch gains nothing from --dtype bf16 but memory"),
    ("SVE", ("sve",), "softmax and activations take a little longer"),
)


def instruction_sets(processor: Processor) -> tuple[InstructionSet, ...]:
    """Those that matter on a processor of its family; none where nothing is known of the family."""
    known = _X86 if processor.is_x86 else _ARM if processor.is_arm else ()
    return tuple(InstructionSet(name, processor.has(*flags), without) for name, flags, without in known)


def disk(folder: Path) -> Disk:
    """The disk that holds ``folder``, which need not exist yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return Disk(folder, shutil.disk_usage(there).free, writable)


_LISTED = (
    "hybrid-router",
    "onnxruntime",
    "onnxruntime-genai",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "pillow",
    "onnx",
)
_IF_INSTALLED = ("onnxruntime-gpu", "onnxruntime-genai-cuda", "starlette")  # nobody misses them

# Below these a known hole is open.
FLOORS = {
    "pillow": ("13.0.0", "a JPEG can overwrite memory (CVE-2026-112403)"),
    "onnx": ("1.21.0", "open holes (CVE-2026-28500, CVE-2026-34445)"),
    "torch": ("2.6", "loading weights can run code (CVE-2025-32434)"),
    "starlette": ("1.3.0", "a request can pass for one to another path (CVE-2026-48710)"),
}


@dataclass(frozen=True)
class Package:
    """One library."""

    name: str
    version: str | None  # None: not installed
    problem: str | None = None
    advice: str | None = None


def packages() -> tuple[Package, ...]:
    """Every library that matters, the missing ones too."""
    listed = [Package(name, installed(name)) for name in _LISTED]
    others = [Package(name, found) for name in _IF_INSTALLED if (found := installed(name)) is not None]
    return tuple(_judged(package) for package in listed + others)


def installed(name: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _judged(package: Package) -> Package:
    if package.version is None or package.name not in FLOORS:
        return package
    floor, hole = FLOORS[package.name]
    if _is_below(package.version, floor):
        advice = f"pip install --upgrade '{package.name}>={floor}'"
        return Package(package.name, package.version, f"below {floor}: {hole}", advice)
    return package


def _is_below(found: str, floor: str) -> bool:
    try:
        return Version(found) < Version(floor)
    except InvalidVersion:  # somebody's own build, of which nothing is known
        return False
