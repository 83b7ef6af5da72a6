"""Which tokens a filter keeps, and how likely they are: a function for each, over scores or over weights.

Scores and single probabilities are float32, since the scores' own rounding allows no more; sums are float64,
since one over 150,000 tokens would lose more than many a token's share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.base import Logits

_LIKELIEST = int(np.float32(1.0).view(np.int32) >> 18)  # see nucleus
_MOST_BY_ENTROPY = 100  # as in transformers: how many tokens top_h looks at


def largest(scores: Logits, k: int) -> NDArray[np.int64]:
    """Ids of the k highest scores and of all that equal the k-th, ascending."""
    k = min(k, scores.size)
    ids: NDArray[np.int64] = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return ids


def weights_of(scores: Logits, temperature: float) -> NDArray[np.float32]:
    """How likely each token is, against the likeliest."""
    with np.errstate(over="ignore"):  # what is too far below the highest becomes -inf, rightly
        weights: NDArray[np.float32] = scores - scores.max()
        # In place: at 150,000 tokens fresh memory costs more than the arithmetic
        weights /= np.float32(max(temperature, 1e-30))
    return np.exp(weights, out=weights)


def nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.int64]:
    """Where the tokens stand that ``top_p`` keeps, ascending; sorts only those about its edge."""
    total = weights.sum(dtype=np.float64)
    # Tokens below this, all of them together, hold less than 1 - top_p
    near = np.flatnonzero(weights >= np.float32((1 - top_p) * total / weights.size))
    close = weights[near]
    # Sign, exponent and 5 more bits of a positive float order as the float does: bin 0 holds the likeliest
    bins = _LIKELIEST - (close.view(np.int32) >> 18)
    sums = np.cumsum(np.bincount(bins, weights=close))
    edge = int(np.searchsorted(sums, top_p * total, side="left"))
    inside = np.flatnonzero(bins == edge)
    inside = inside[np.argsort(-close[inside], kind="stable")]
    before = np.cumsum(close[inside].astype(np.float64)) - close[inside] + (sums[edge - 1] if edge else 0.0)
    kept = bins < edge
    kept[inside[before < top_p * total]] = True
    positions: NDArray[np.int64] = near[kept]
    return positions


def entropic(scores: Logits, temperature: float, top_h: float) -> NDArray[np.int64]:
    """Where the likeliest tokens stand that hold ``top_h`` of the entropy of the likeliest 100, ascending.

    "Top-H Decoding" (arXiv 2509.02510), as transformers computes it. One token always stays.
    """
    near = largest(scores, _MOST_BY_ENTROPY)
    near = near[np.argsort(-scores[near], kind="stable")][:_MOST_BY_ENTROPY]
    shares = weights_of(scores[near], temperature).astype(np.float64)
    shares /= shares.sum()
    terms = -_times_log(shares)
    kept = (np.cumsum(terms) <= top_h * terms.sum()) & (shares > 0)
    kept[0] = True
    positions: NDArray[np.int64] = np.sort(near[kept])
    return positions


def typical(weights: NDArray[np.float32], mass: float) -> NDArray[np.int64]:
    """Where the tokens stand whose surprise is nearest to the mean, ``mass`` of them (arXiv 2202.00666)."""
    shares = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    with np.errstate(divide="ignore"):
        away = np.abs(-np.log(shares) + _times_log(shares).sum())
    order = np.argsort(away, kind="stable")
    last = min(int((np.cumsum(shares[order]) < mass).sum()), shares.size - 1)
    positions: NDArray[np.int64] = np.flatnonzero(away <= away[order[last]])
    return positions


def likely(weights: NDArray[np.float32], epsilon: float) -> NDArray[np.int64]:
    """Where the tokens stand that are at least ``epsilon`` likely (arXiv 2210.15191); the likeliest stays."""
    shares = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    positions: NDArray[np.int64] = np.flatnonzero((shares >= epsilon) | (weights == weights.max()))
    return positions


def eta(weights: NDArray[np.float32], epsilon: float) -> float:
    """The least share that eta sampling keeps: ``epsilon``, less where one token is nearly certain.

    arXiv 2210.15191.
    """
    shares = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    return float(min(epsilon, np.sqrt(epsilon) * np.exp(_times_log(shares).sum())))


def _times_log(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """p log p, nothing where p is nothing."""
    terms: NDArray[np.float64] = shares * np.log(np.where(shares > 0, shares, 1.0))
    return terms
