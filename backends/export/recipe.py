"""What an export is made of: which precision, and how the matrices are rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from backends.base import RequestError

Precision: TypeAlias = Literal["int4", "int8", "fp32"]
VisionPrecision: TypeAlias = Literal["int8", "w8", "fp32"]
RecipeName: TypeAlias = Literal["faithful", "fast"]

BLOCK_SIZES = (16, 32, 64, 128, 256)


class MatrixError(NamedTuple):
    """How far a matrix moved when it was rounded: ||W - Wq|| / ||W||, Frobenius norms."""

    name: str
    bits: int
    block: int  # values that share a scale along a row; 0 where a whole row or column does
    error: float


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint becomes ONNX; a field left None is what ``recipe`` says.

    ``faithful`` rounds no matrix worse than llama.cpp's Q4_0 does, ``fast`` uses the largest block that
    onnxruntime's kernels are quickest with.
    """

    precision: Precision = "int4"
    recipe: RecipeName = "faithful"
    block_size: int | None = None
    symmetric: bool | None = None  # no zero points: a little smaller and coarser
    search: bool = True  # choose scales that keep the squared error least, not those of the extreme values
    accuracy_level: Literal[0, 1, 4] = 4  # 4 multiplies int8 by int8; 0 in float32, slow and exact
    head_bits: Literal[4, 8] | None = None
    int8_layers: frozenset[int] = frozenset()  # decoder layers kept at 8 bits
    vision_precision: VisionPrecision | None = None

    def __post_init__(self) -> None:
        if self.block_size is not None and self.block_size not in BLOCK_SIZES:
            raise RequestError(
                f"block_size must be one of {', '.join(map(str, BLOCK_SIZES))}, got {self.block_size}",
                param="block_size",
            )
