"""The machine: what decides which backends run on it, and how fast. Its memory is the container's."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from backends.machine import Processor, total_memory, usable_cores

# what decides how fast small numbers are multiplied, by Linux's names
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
class InstructionSet:
    """One that matters for speed, whether the processor has it, and what it costs not to have it."""

    name: str
    present: bool | None  # None: the system does not tell
    without: str


@dataclass(frozen=True)
class Machine:
    """A computer, as far as this process may use it; nothing here changes while others come and go."""

    system: str  # name, release and architecture
    processor: Processor
    cores_usable: int
    cores_present: int
    memory_total: int | None  # bytes; None: the system does not tell
    cache_bytes: int | None  # of the largest cache

    @classmethod
    def read(cls) -> Machine:
        """This one."""
        usable = usable_cores()
        return cls(
            system=platform.platform(),
            processor=Processor.read(),
            cores_usable=usable,
            cores_present=os.cpu_count() or usable,
            memory_total=total_memory(),
            cache_bytes=_cache_bytes(),
        )

    @property
    def cpu(self) -> str:
        """The processor's name, or at least its architecture."""
        return self.processor.name or self.processor.architecture

    @property
    def instructions(self) -> tuple[str, ...]:
        """Linux's names of the instruction sets that it has and that matter."""
        return tuple(name for name in _INSTRUCTIONS if self.processor.has(name))

    @property
    def instruction_sets(self) -> tuple[InstructionSet, ...]:
        """Those that matter on a processor of its family; none where nothing is known of the family."""
        known = _X86 if self.processor.is_x86 else _ARM if self.processor.is_arm else ()
        return tuple(
            InstructionSet(name, self.processor.has(*flags), without) for name, flags, without in known
        )


def _cache_bytes() -> int | None:
    units = {"K": 1 << 10, "M": 1 << 20}
    try:
        sizes = [file.read_text().strip() for file in _CACHES.glob("index*/size")]
        return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=None)
    except (OSError, ValueError, KeyError, IndexError):
        return None


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
