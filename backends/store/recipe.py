"""How a checkpoint becomes an export: which precision, and how each matrix is rounded.

`Recipe` is what a user chooses; `Scheme` is what follows from it for one matrix: bits, block, zero points.
`MatrixError` is what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

from backends.base import RequestError

Precision: TypeAlias = Literal["int4", "int8", "fp32"]
VisionPrecision: TypeAlias = Literal["int8", "w8", "fp32"]
PrefillPrecision: TypeAlias = Literal["int8"]
RecipeName: TypeAlias = Literal["faithful", "fast"]

BLOCK_SIZES = (16, 32, 64, 128, 256)
SHORTLIST = 256  # more than are sampled from, and few enough to cost a 40th of a 2B model's token
SEARCH = "shortlist."  # begins the name under which the error of a head's upper bits is noted
_LARGE = 8192  # tokens; a head of fewer is read so fast that finding its best scores would not pay


class MatrixError(NamedTuple):
    """How far a matrix moved when it was rounded: ||W - Wq|| / ||W||, Frobenius norms.

    Of a calibrated export it is known too how far that moved its outputs, on prompts that it was not
    calibrated on: ||X (W - Wq)|| / ||X W||.
    """

    name: str
    bits: int
    block: int  # values that share a scale along a row; 0 where a whole row or column does
    error: float
    output_error: float | None = None
    plain_output_error: float | None = None  # what rounding each value by itself would have come to


@dataclass(frozen=True)
class Scheme:
    """How a matrix is rounded."""

    bits: int  # 2, 4, 7 or 8; 7 take a byte each
    block: int  # values of a row that share a scale
    symmetric: bool = False
    search: bool = True
    lean: float = 0.0  # of a step, by which codes are chosen higher than the nearest: see `rest_of`

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The code that stands for 0 where there are no zero points."""
        return 1 << (self.bits - 1)

    def blocks(self, columns: int) -> int:
        """How many blocks a row has."""
        return -(-columns // self.block)


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint becomes ONNX; a field left None is what ``recipe`` says.

    ``faithful`` rounds no worse than llama.cpp's Q4_0 does: no matrix, or, calibrated, no matrix's outputs in
    the mean. ``fast`` uses the largest block that onnxruntime's kernels are quickest with, no zero points,
    and a smaller head; calibrated, ``faithful`` uses such blocks too. A head of a large vocabulary is read by
    its upper 4 bits, and the best scores by all of its bits, 8 or in ``fast`` 6; a small one has 8 or 4, read
    whole.
    """

    precision: Precision = "int4"
    recipe: RecipeName = "faithful"
    block_size: int | None = None
    symmetric: bool | None = None  # no zero points: faster, coarser; None: calibrated, or in ``fast``
    search: bool = True  # choose scales that keep the squared error least, not those of the extreme values
    accuracy_level: Literal[0, 1, 4] = 4  # 4 multiplies int8 by int8; 0 in float32, slow and exact
    head_bits: Literal[4, 6, 8] | None = None
    int8_layers: frozenset[int] = frozenset()  # decoder layers kept at 8 bits
    vision_precision: VisionPrecision | None = None
    prefill_precision: PrefillPrecision | None = None  # int8: more matrices, for reading long prompts faster
    # how many of the best scores are computed with all bits of the head, after 4 have found them; 0: all
    shortlist: int | None = None
    calibrate: bool = False  # round 4-bit layers by what goes into them: error-compensated, on prompts

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed and not (value is None and name in _LEFT_OPEN):
                raise RequestError(
                    f"{name} must be one of {', '.join(map(str, allowed))}, got {value}", param=name
                )
        if self.shortlist is not None and not 0 <= self.shortlist <= _LARGE:
            raise RequestError(
                f"shortlist must be from 0 to {_LARGE}, got {self.shortlist}", param="shortlist"
            )
        if self.shortlist and (self.precision == "fp32" or self.head_bits == 4):
            raise RequestError(
                "shortlist is for a head of 6 or 8 bits, whose upper 4 are read first; leave it out",
                param="shortlist",
            )
        if self.head_bits == 6 and self.shortlist == 0:
            raise RequestError(
                "a head of 6 bits is read in two parts: give a shortlist, or head_bits 4 or 8",
                param="head_bits",
            )
        if self.calibrate and self.precision != "int4":
            raise RequestError(
                f"calibrate is for precision int4, got {self.precision}; leave one of them out",
                param="calibrate",
            )

    def body(self, layer: int, columns: int) -> Scheme | None:
        """How a decoder layer's matrices with rows of ``columns`` values are rounded; None: not at all."""
        if self.precision == "fp32":
            return None
        if self.precision == "int8" or layer in self.int8_layers:
            return self._eight(columns)
        # what calibration gives is worth more than small blocks: see benchmarks/results/rounding.md
        block = self.block_size or (128 if self._quick else 32)
        return Scheme(4, fitting(block, columns), self._without_zeros, self.search)

    def head(self, columns: int) -> Scheme | None:
        """How the matrix that gives the scores is rounded, where it is read whole."""
        if self.precision == "fp32":
            return None
        if (self.head_bits or (4 if self._small_head else 8)) != 4:
            return self._eight(columns)
        # where it is tied it is the embedding table too: small blocks cost a 30th of the file
        return Scheme(4, fitting(self.block_size or 32, columns), bool(self.symmetric), self.search)

    def best_scores(self, vocab: int) -> int:
        """How many scores of a head of ``vocab`` rows are computed with all bits; 0: it is read whole."""
        if self.shortlist is not None:
            return self.shortlist if self.shortlist < vocab else 0
        pays = self.precision == "int4" and self.head_bits != 4 and vocab >= _LARGE
        # 6 bits there are in two parts alone
        chosen = self.precision != "fp32" and self.head_bits == 6
        return SHORTLIST if (pays or chosen) and vocab > SHORTLIST else 0

    def upper_head(self, columns: int) -> Scheme:
        """How the upper 4 bits of a head in two parts are rounded."""
        # codes that reach to the extremes of a block, or the rest would not reach to them
        lean = 0.5 ** (self.rest_bits + 1)
        block = fitting(self.block_size or 128, columns)
        return Scheme(4, block, self._without_zeros, search=False, lean=lean)

    @property
    def rest_bits(self) -> int:
        """Of a head in two parts."""
        return (self.head_bits or (6 if self._small_head else 8)) - 4

    def embeddings(self, columns: int) -> Scheme | None:
        """How an embedding table of its own is rounded.

        At 8 bits it moves by 0.006, a twelfth of what the first matrix after it moves by, for half the bytes
        of bfloat16; a gather takes the same time at any size. A tied table is the head.
        """
        return None if self.precision == "fp32" else self._eight(columns)

    @property
    def _without_zeros(self) -> bool:
        """Whether what decoding reads most of, layers and a head's upper bits, has no zero points."""
        return self._quick if self.symmetric is None else self.symmetric

    @property
    def _quick(self) -> bool:
        """Whether layers of 4 bits are rounded as onnxruntime's kernels are quickest with."""
        return self.recipe == "fast" or self.calibrate

    @property
    def _small_head(self) -> bool:
        return self.precision == "int4" and self.recipe == "fast"

    def _eight(self, columns: int) -> Scheme:
        # the extremes of a block are worth their codes at 8 bits: there is nothing to search for
        return Scheme(8, fitting(self.block_size or 128, columns), bool(self.symmetric), search=False)


def fitting(block: int, columns: int) -> int:
    """The largest block size up to ``block`` that divides ``columns``, or ``block`` where none does."""
    return next((size for size in reversed(BLOCK_SIZES) if size <= block and columns % size == 0), block)


_ALLOWED: dict[str, tuple[object, ...]] = {
    "precision": get_args(Precision),
    "recipe": get_args(RecipeName),
    "block_size": BLOCK_SIZES,
    "accuracy_level": (0, 1, 4),
    "head_bits": (4, 6, 8),
    "vision_precision": get_args(VisionPrecision),
    "prefill_precision": get_args(PrefillPrecision),
    "calibrate": (True, False),
}
_LEFT_OPEN = ("block_size", "head_bits", "vision_precision", "prefill_precision")
