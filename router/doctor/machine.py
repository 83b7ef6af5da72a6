"""The machine: its processor's instruction sets, cores, memory, disk, and what runs on it."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from backends.export.sizes import MEMORY
from backends.machine import available_memory, total_memory, usable_cores
from backends.processor import Processor
from router.models import home

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
class Machine:
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
    def read(cls) -> Machine:
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
        "INT4 and int8 products take three steps, not one; pictures a fifth longer, to keep sums exact",
    ),
    (
        "AVX512-BF16",
        ("avx512_bf16",),
        "torch computes in float32 where that fits: slower, and twice the memory",
    ),
    ("AMX", ("amx_int8",), "pictures are read without int8 tiles; few processors have them"),
)
_ARM = (
    ("dotprod", ("asimddp",), "no int8 kernels for INT4 matrices: products in float32, far slower"),
    ("i8mm", ("i8mm",), "int8 products go row by row: prompts and pictures are read slower"),
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
