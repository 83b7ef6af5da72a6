"""What the processor is and can do, as the operating system tells it; nothing heavy is imported."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "amd64", "i386", "i686")


@dataclass(frozen=True)
class Processor:
    """One machine's processor; its cores may differ, then what all of them have counts."""

    architecture: str  # x86_64, aarch64 ...
    name: str  # empty where the system does not tell
    features: frozenset[str] | None  # instruction sets, by Linux's names; None: the system does not tell

    @classmethod
    def read(cls, cpuinfo: Path = _CPUINFO, architecture: str | None = None) -> Processor:
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
