"""Error-compensated rounding: what a value loses is made up for by the values after it in its row.

With inputs X [tokens, columns] a row w of a matrix gives X w; a rounded one misses that by e H e, squared,
where e is what the rounding took off and H = X^T X. Written as H = (1 + F) D (1 + F)^T, F upper triangular
with zeros on its diagonal and D diagonal, the loss is the sum of D_i (e_i + sum_{j<i} e_j F_ji)^2: to round
w_i + sum_{j<i} e_j F_ji instead of w_i, in order, leaves of each term what one rounding leaves. It is GPTQ
(Frantar et al. 2022, arXiv 2210.17323), in the form of LDLQ (QuIP, arXiv 2307.13304), which needs no inverse.
Of H only those correlations are used that two halves of the prompts agree on (`hessian`).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.export.calibration.samples import Floats
from backends.export.quantize import Matrix, Rounded, pack, scales
from backends.store import Scheme

DAMPING = 0.01  # of the mean of H's diagonal, added to it: H of few tokens, or of dead inputs, is singular
_PIECE = 512  # rows compensated at once by one thread: they stay in the processor's cache


def hessian(inputs: Floats, middle: int) -> NDArray[np.float32]:
    """X^T X [columns, columns] of ``inputs`` [tokens, columns], with correlations as far as they are sure.

    A few thousand tokens show correlations where there are none, and rounding that leans on those is worse on
    every other text. With A and B from the tokens before and after ``middle``, a share <A, B> / |A + B|^2 of
    the squared correlations (A and B brought to the size of A + B) is found in both: all are shrunk to it.
    """
    one, other = (part.T @ part for part in (inputs[:middle], inputs[middle:]))
    whole = one + other
    shares = middle / len(inputs), 1 - middle / len(inputs)
    diagonal = whole.diagonal().copy()
    common = (np.vdot(one, other) - one.diagonal() @ other.diagonal()) / (shares[0] * shares[1])
    correlations = np.vdot(whole, whole) - diagonal @ diagonal
    whole *= np.float32(np.clip(common / max(correlations, 1e-30), 0, 1))
    whole[np.diag_indices(len(whole))] = diagonal
    return whole


class Feedback(NamedTuple):
    """The factors of H."""

    shares: NDArray[np.float32]  # F [columns, columns]: of the loss at j, how much is added to the value at i
    weights: NDArray[np.float32]  # D [columns]: what the squared loss of each value counts, after that


class _Block(NamedTuple):
    """Some columns of a matrix, rounded."""

    lost: Matrix  # [rows, block]
    codes: NDArray[np.uint8]  # [rows, block]
    scale: NDArray[np.float32]  # [rows, 1]
    zero: NDArray[np.float32]  # [rows, 1]


def feedback(hessian: NDArray[np.float32]) -> Feedback:
    """Factor ``hessian`` [columns, columns], damped; in float64, whose range its diagonal may fill."""
    size = len(hessian)
    damped = hessian[::-1, ::-1].astype(np.float64)
    mean = float(np.trace(damped)) / size
    damped[np.diag_indices(size)] += DAMPING * mean if mean > 0 else 1.0
    # the factor of the reversed matrix, reversed, is an upper one
    upper = np.linalg.cholesky(damped)[::-1, ::-1]
    diagonal = upper.diagonal().copy()
    shares = np.asarray(upper / diagonal, np.float32)
    shares[np.diag_indices(size)] = 0
    return Feedback(shares, np.asarray(diagonal**2, np.float32))


def compensate(matrix: Matrix, factors: Feedback, scheme: Scheme) -> Rounded:
    """Round rows to ``scheme`` so that the products with the inputs behind ``factors`` change little."""
    rows, columns = matrix.shape
    short = -columns % scheme.block
    padded = np.pad(matrix, ((0, 0), (0, short))) if short else matrix
    shares, weights = np.pad(factors.shares, (0, short)), np.pad(factors.weights, (0, short))
    lost = np.zeros_like(padded)
    blocks: list[_Block] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, columns, scheme.block):
            block = slice(first, first + scheme.block)
            # what all that was rounded so far has lost asks of this block: one product for all rows
            target = padded[:, block] + lost[:, :first] @ shares[:first, block]
            round_rows = partial(_round, shares=shares[block, block], weights=weights[block], scheme=scheme)
            pieces = [slice(row, row + _PIECE) for row in range(0, rows, _PIECE)]
            parts = pool.map(round_rows, [padded[p, block] for p in pieces], [target[p] for p in pieces])
            blocks.append(_Block(*(np.concatenate(fields) for fields in zip(*parts, strict=True))))
            lost[:, block] = blocks[-1].lost
    codes, scale, zero = (np.stack(parts, 1) for parts in list(zip(*blocks, strict=True))[1:])
    return pack(codes, scale, zero, scheme)


def _round(
    original: Matrix,
    target: Matrix,
    shares: NDArray[np.float32],
    weights: NDArray[np.float32],
    scheme: Scheme,
) -> _Block:
    """Round a block [rows, block] towards ``target``, one column after the other."""
    # the scale is chosen for what is asked of the block before it loses anything itself
    scale, zero = (part[:, 0] for part in scales(target[:, None], scheme, weights / weights.max()))
    inverse, low, high = (part[:, 0] for part in (1 / scale, -zero, np.float32(scheme.top) - zero))
    # what is computed with are columns of many rows: their values stand one after the other
    original, target = np.ascontiguousarray(original.T), np.ascontiguousarray(target.T)
    lost, steps = np.zeros_like(target), np.empty_like(target)
    for column in range(scheme.block):
        value = target[column] + shares[:column, column] @ lost[:column]
        steps[column] = np.clip(np.rint(value * inverse), low, high)
        lost[column] = original[column] - steps[column] * scale[:, 0]
    return _Block(lost.T, (steps - low).T.astype(np.uint8), scale, zero)
