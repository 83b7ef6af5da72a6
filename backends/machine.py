"""The machine as far as this process may use it: cores, instruction sets, memory, and the dtype they allow.

A container's own limits count, not those of the computer it runs on. Everything is read where Linux keeps it;
what another system does not tell is None. Nothing heavy is imported.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from backends.base import BackendError, DType

_PROC = Path("/proc")
_GROUP = Path("/sys/fs/cgroup")  # Linux control groups, version 2, where a container's own limits stand


def usable_cores(quota: Path = _GROUP / "cpu.max") -> int:
    """The cores that the affinity mask names, and no more than the container's share of time.

    ``quota`` holds "quota period" in microseconds, or "max period".
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    return allowed if share == "max" else max(1, min(allowed, math.ceil(int(share) / int(period))))


_X86 = ("x86_64", "amd64", "i386", "i686")


@dataclass(frozen=True)
class Processor:
    """One machine's processor; its cores may differ, then what all of them have counts."""

    architecture: str  # x86_64, aarch64 ...
    name: str  # empty where the system does not tell
    features: frozenset[str] | None  # instruction sets, by Linux's names; None: the system does not tell

    @classmethod
    def read(cls, cpuinfo: Path = _PROC / "cpuinfo", architecture: str | None = None) -> Processor:
        """This machine's; ``cpuinfo`` and ``architecture`` of another one describe that."""
        architecture = architecture or platform.machine()
        try:
            lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        except OSError:
            return cls(architecture, "", None)
        fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
        sets = [frozenset(value.split()) for key, value in fields if key in ("flags", "Features")]
        return cls(architecture, _name(fields), frozenset.intersection(*sets) if sets else None)

    @property
    def is_x86(self) -> bool:
        """Whether it is of the PC's family."""
        return self.architecture.lower() in _X86

    @property
    def is_arm(self) -> bool:
        """Whether it is a 64-bit ARM."""
        return self.architecture.lower() in ("aarch64", "arm64")

    def has(self, *names: str) -> bool | None:
        """Whether it has one of these instruction sets; None where the system does not tell."""
        return None if self.features is None else not self.features.isdisjoint(names)

    @property
    def sums_whole(self) -> bool:
        """Whether it adds int8 products without cutting sums at 16 bits, as x86 did before VNNI."""
        return not self.is_x86 or bool(self.has("avx512_vnni", "avx_vnni"))

    @property
    def multiplies_bf16(self) -> bool:
        """Whether PyTorch has fast products of bfloat16 on it."""
        return bool(self.has("avx512_bf16"))


def _name(fields: list[tuple[str, str]]) -> str:
    """The model's name; on ARM often the board's, or the maker's numbers."""
    known = dict(reversed(fields))  # of each key the first value
    for key in ("model name", "Model", "Hardware"):
        if known.get(key):
            return known[key]
    numbers = [f"{key} {known[key]}" for key in ("CPU implementer", "CPU part") if key in known]
    return ", ".join(numbers)


def total_memory(meminfo: Path = _PROC / "meminfo", group: Path = _GROUP) -> int | None:
    """Bytes of memory that the machine has, or the control group may take; None where that is not told."""
    return min([*_system_memory(meminfo, "MemTotal"), *_group_limit(group)], default=None)


def available_memory(meminfo: Path = _PROC / "meminfo", group: Path = _GROUP) -> int | None:
    """Bytes of memory that a process can still take without swapping; None where that is not told."""
    return min([*_system_memory(meminfo, "MemAvailable"), *_group_room(group)], default=None)


def _system_memory(meminfo: Path, name: str) -> list[int]:
    """Bytes as the system gives them under ``name``; none where it does not."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]


def _group_limit(group: Path) -> list[int]:
    try:
        return [int((group / "memory.max").read_text())]
    except (OSError, ValueError):  # no such file, or "max": no limit
        return []


def _group_room(group: Path) -> list[int]:
    """What the control group, a container's for example, still allows: its cached files go when need be."""
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        statistics = (group / "memory.stat").read_text()
        cached = [
            int(line.split()[1]) for line in statistics.splitlines() if line.startswith("inactive_file ")
        ]
        return [int(limit) - int(used) + sum(cached)]
    except (OSError, ValueError):  # no such file, or "max": no limit
        return []


def peak_bytes(process: int | str = "self") -> int | None:
    """Most bytes resident since a process began or its peak was reset, mapped files included.

    None where the process is gone, or the system keeps no such figure of a process alone: getrusage's is at
    least that of the process which started it.
    """
    try:
        lines = (_PROC / str(process) / "status").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def reset_peak() -> None:
    """Let this process's peak begin anew at what it holds now; where that is not offered, it goes on."""
    try:
        (_PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return


_NO_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate", "cannot allocate", "out of memory")


def tells_of_no_memory(message: str) -> bool:
    """Whether a library's message says that the system gave it no memory."""
    return any(sign in message.lower() for sign in _NO_MEMORY)


ARENAS = 2
_M_ARENA_MAX = -8  # as glibc's malloc.h has it


def use_few_arenas() -> None:
    """Let all threads that begin from now on share ARENAS arenas of the C library's allocator.

    By default there are eight for each core, and each keeps the most that any of its threads ever had: where
    threads come and go, a process grows until every arena has seen the worst. A MALLOC_ARENA_MAX in the
    environment stays as it is; where the library is not glibc, nothing is to be done.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
    except (AttributeError, OSError, TypeError):
        return


class LoadedHere:
    """Remembers the process that loaded a model: the library's threads do not follow into a forked one."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def check(self) -> None:
        """BackendError in a forked process, where a run would wait for those threads for ever."""
        if os.getpid() != self._process:
            raise BackendError(
                "the model was loaded before this process was forked; load it in this process, or spawn",
                code="backend_unavailable",
            )


Format: TypeAlias = Literal["bf16", "fp32"]

BYTES: dict[Format, int] = {"bf16": 2, "fp32": 4}  # of one weight


def weight_format(folder: Path, dtype: DType, processor: Processor) -> Format:
    """What is asked for, else bf16 where ``processor`` multiplies it or float32 would not fit, else fp32."""
    if dtype != "auto":
        return dtype
    if processor.multiplies_bf16:
        return "bf16"
    return "fp32" if _float32_fits(folder, total_memory()) else "bf16"


def reference_format(folder: Path, dtype: DType) -> Format:
    """What is asked for, else fp32 where the memory that is free now holds it, else bf16.

    For weights that others are measured against: rounding them to bf16 for speed would be taken for the
    others' error.
    """
    if dtype != "auto":
        return dtype
    return "fp32" if _float32_fits(folder, available_memory()) else "bf16"


def _float32_fits(folder: Path, memory: int | None) -> bool:
    """Whether ``memory`` bytes hold the weights in float32; None, where the system does not tell, does."""
    in_float32 = 2 * sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    # a quarter is left for activations, the cache and everything else
    return memory is None or in_float32 < 0.75 * memory
