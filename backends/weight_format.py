"""In which numbers PyTorch holds a checkpoint's weights; told without PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias

from backends.base import DType
from backends.processor import Processor

Format: TypeAlias = Literal["bf16", "fp32"]

BYTES: dict[Format, int] = {"bf16": 2, "fp32": 4}  # of one weight


def weight_format(folder: Path, dtype: DType, processor: Processor) -> Format:
    """What is asked for, else bf16 where ``processor`` multiplies it or float32 would not fit, else fp32."""
    if dtype != "auto":
        return dtype
    if processor.multiplies_bf16:
        return "bf16"
    in_float32 = 2 * sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # a quarter is left for activations, the cache and everything else
    return "fp32" if in_float32 < 0.75 * memory else "bf16"
