"""In which numbers PyTorch holds a checkpoint's weights; told without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from backends.base import DType
from backends.machine import available_memory, total_memory
from backends.processor import Processor

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
