"""H of the inputs of a matrix, with what two halves of the prompts do not agree on taken out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.export.calibration.samples import Floats


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
    found = np.vdot(whole, whole) - diagonal @ diagonal
    whole *= np.float32(np.clip(common / max(found, 1e-30), 0, 1))
    whole[np.diag_indices(len(whole))] = diagonal
    return whole
