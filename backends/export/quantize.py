"""Matrices rounded to a few bits, with a scale and perhaps a zero point a block, as MatMulNBits reads them.

A value is ``(code - zero) * scale``; without zero points ``zero`` is the middle code. Rows are cut into
blocks of consecutive values; the last block of a row is filled up with zeros. Two codes of 4 bits share a
byte, or four of 2 bits, the earlier ones in the lower bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.store import Scheme, pack_codes, unpack_codes

Matrix: TypeAlias = NDArray[np.float32]  # [rows, columns]
Bytes: TypeAlias = NDArray[np.uint8]
Blocks: TypeAlias = NDArray[np.float32]  # [rows, blocks, block]
PerBlock: TypeAlias = NDArray[np.float32]  # [rows, blocks, 1]

# Of the range of a block, how much the codes span: clipping the extremes pays for 4 bits, not for 8
_SPANS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.74)
_TINY = np.float32(1e-30)  # keeps a block of zeros from dividing by zero


@dataclass(frozen=True, eq=False)
class Rounded:
    """A rounded matrix, or some rows of one."""

    packed: Bytes  # [rows, blocks, block / 2 or block]
    scales: NDArray[np.float32]  # [rows, blocks]
    zeros: Bytes | None  # [rows, ceil(blocks * bits / 8)]

    @classmethod
    def joined(cls, parts: Sequence[Rounded]) -> Rounded:
        """The matrix whose rows ``parts`` have, one below the other."""
        zeros = [part.zeros for part in parts if part.zeros is not None]
        packed, scales = [part.packed for part in parts], [part.scales for part in parts]
        return cls(np.concatenate(packed), np.concatenate(scales), np.concatenate(zeros) if zeros else None)


def quantise(matrix: Matrix, scheme: Scheme) -> Rounded:
    """Round rows to ``scheme``; with ``search`` the scales keep the squared error of each block small."""
    rows, columns = matrix.shape
    blocks = scheme.blocks(columns)
    if blocks * scheme.block != columns:
        matrix = np.pad(matrix, ((0, 0), (0, blocks * scheme.block - columns)))
    values: Blocks = matrix.reshape(rows, blocks, scheme.block)
    scale, zero = scales(values, scheme)
    codes = _steps(values, scale, zero, scheme)
    codes += zero
    return pack(codes.astype(np.uint8), scale, zero, scheme)


def moved(matrix: Matrix, scheme: Scheme | None) -> Matrix:
    """What rows become when they are rounded; None: what they are."""
    return matrix if scheme is None else dequantise(quantise(matrix, scheme), scheme, matrix.shape[1])


def rest_of(upper: Scheme, bits: int) -> Scheme:
    """How ``bits`` more are kept of what ``upper`` leaves of a matrix.

    They reach from half a step of ``upper`` down to a step of their own less than half a step up, so it must
    lean by half a step of theirs.
    """
    assert upper.lean == 0.5 ** (bits + 1)
    return Scheme(bits, upper.block, symmetric=True, search=False)


def quantise_rest(matrix: Matrix, rounded: Rounded, upper: Scheme, rest: Scheme) -> Rounded:
    """What the codes ``rounded`` of scheme ``upper`` leave of the rows, in steps of a part of their scales.

    The sum of both is nearly as near as codes of the bits of both together: the scales are those of 15 upper
    steps, where 16 less one of the rest's would do.
    """
    error = matrix - dequantise(rounded, upper, matrix.shape[1])
    rows, blocks = rounded.scales.shape
    error = np.pad(error, ((0, 0), (0, blocks * upper.block - error.shape[1])))
    scale = (rounded.scales / np.float32(rest.top + 1))[..., None]
    middle = np.full_like(scale, rest.middle)
    codes = _steps(error.reshape(rows, blocks, -1), scale, middle, rest) + middle
    return pack(codes.astype(np.uint8), scale, middle, rest)


def scales(
    values: Blocks, scheme: Scheme, weights: NDArray[np.float32] | None = None
) -> tuple[PerBlock, PerBlock]:
    """Scale and zero point of each block; ``weights`` [block]: what the squared error of each counts."""
    if not scheme.search:
        return _spanning(values, scheme, 1.0)
    return _searched(values, scheme, weights)


def pack(codes: Bytes, scale: PerBlock, zero: PerBlock, scheme: Scheme) -> Rounded:
    """Codes [rows, blocks, block] with the scales and zero points they belong to."""
    zeros = None if scheme.symmetric else pack_codes(zero[..., 0].astype(np.uint8), scheme.bits)
    return Rounded(pack_codes(codes, scheme.bits), np.ascontiguousarray(scale[..., 0]), zeros)


def dequantise(rounded: Rounded, scheme: Scheme, columns: int) -> Matrix:
    """The matrix [rows, columns] that the codes stand for."""
    rows, blocks = rounded.scales.shape
    codes = unpack_codes(rounded.packed, scheme.bits).astype(np.float32)
    if rounded.zeros is None:
        codes -= np.float32(scheme.middle)
    else:
        codes -= unpack_codes(rounded.zeros, scheme.bits)[:, :blocks, None].astype(np.float32)
    codes *= rounded.scales[..., None]
    return codes.reshape(rows, -1)[:, :columns]


def _spanning(values: Blocks, scheme: Scheme, span: float) -> tuple[PerBlock, PerBlock]:
    """Scales and zero points with which the codes reach over ``span`` of each block's range."""
    if scheme.symmetric:
        return _symmetric(values, scheme, span)
    low = np.minimum(values.min(-1, keepdims=True), 0)
    high = np.maximum(values.max(-1, keepdims=True), 0)
    return _between(low * np.float32(span), high * np.float32(span), scheme)


def _symmetric(values: Blocks, scheme: Scheme, span: float) -> tuple[PerBlock, PerBlock]:
    # the lowest code reaches one step further than the highest, so the larger side gets it
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    widest = np.where(-low > high, -low, -high) * np.float32(span)
    zero = np.full_like(widest, scheme.middle)
    if not scheme.lean:
        return _nonzero(widest / np.float32(scheme.middle)), zero
    # the bits that follow reach half a step further down, and on the other side nearly as far up
    reach = np.float32(0.5 + scheme.lean)
    other = np.minimum(-low, high) * np.float32(span)
    size = np.maximum(np.abs(widest) / (scheme.middle + reach), other / (scheme.middle - reach))
    return _nonzero(np.copysign(size, widest)), zero


def _between(low: PerBlock, high: PerBlock, scheme: Scheme) -> tuple[PerBlock, PerBlock]:
    scale = _nonzero((high - low) / np.float32(scheme.top))
    return scale, np.clip(np.rint(-low / scale - np.float32(scheme.lean)), 0, scheme.top)


def _searched(
    values: Blocks, scheme: Scheme, weights: NDArray[np.float32] | None
) -> tuple[PerBlock, PerBlock]:
    """The best of several spans for each block, each with the scale of least squares for its codes.

    For codes c (zero point taken off) the best scale is w.c / c.c, and it takes (w.c)^2 / c.c off the squared
    error that a scale of 0 would have: the span with the largest such gain wins. What llama.cpp's Q4_0 does
    is tried too, so that no block of its size or smaller is rounded worse than there.
    """
    best_scale, best_zero = _spanning(values, scheme, _SPANS[0])
    best_gain = np.full_like(best_scale, -1)
    trials = [_spanning(values, scheme, span) for span in _SPANS]
    for scale, zero in [*trials, _symmetric(values, scheme, 1.0)]:
        _keep(values, scale, zero, scheme, weights, best_scale, best_zero, best_gain)
    # once more with the scales just found: the codes that belong to them may be others
    _keep(values, best_scale.copy(), best_zero.copy(), scheme, weights, best_scale, best_zero, best_gain)
    return best_scale, best_zero


def _keep(
    values: Blocks,
    scale: PerBlock,
    zero: PerBlock,
    scheme: Scheme,
    weights: NDArray[np.float32] | None,
    best_scale: PerBlock,
    best_zero: PerBlock,
    best_gain: PerBlock,
) -> None:
    """Overwrite the best where the least-squares scale for these codes gains more."""
    steps = _steps(values, scale, zero, scheme)
    weighted = steps if weights is None else steps * weights
    along = np.einsum("rbk,rbk->rb", values, weighted)[..., None]
    square = np.einsum("rbk,rbk->rb", steps, weighted)[..., None]
    fitted = along / np.maximum(square, _TINY)
    gain = along * fitted
    better = gain > best_gain
    np.copyto(best_gain, gain, where=better)
    np.copyto(best_scale, _nonzero(fitted), where=better)
    np.copyto(best_zero, zero, where=better)


def _steps(values: Blocks, scale: PerBlock, zero: PerBlock, scheme: Scheme) -> Blocks:
    """Codes less their zero point, as floats."""
    steps = values * np.reciprocal(scale)
    if scheme.lean:
        steps += np.float32(scheme.lean)
    np.rint(steps, out=steps)
    np.clip(steps, -zero, np.float32(scheme.top) - zero, out=steps)
    return steps


def _nonzero(scale: PerBlock) -> PerBlock:
    return np.where(np.abs(scale) < _TINY, _TINY, scale).astype(np.float32, copy=False)
