"""What a decoder layer does between its matrices, in numpy and float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from backends.export.calibration.samples import Floats
from backends.export.rotary import axes, inverse_frequencies
from backends.qwen3vl.config import TextConfig

_TOKENS = 512  # gated at once: the product before is three times as wide as what comes out


def turns(places: NDArray[np.int64], config: TextConfig) -> tuple[Floats, Floats]:
    """Cosine and sine of each token's rotary angles, [tokens, head_dim / 2], from ``places`` [3, tokens]."""
    angles = places[axes(config)].T.astype(np.float32) * inverse_frequencies(config)
    return np.cos(angles), np.sin(angles)


def normalise(x: Floats, scale: Floats, epsilon: float) -> Floats:
    """RMS norm over the last axis."""
    square = np.einsum("...i,...i->...", x, x)[..., None] / np.float32(x.shape[-1])
    return np.asarray(x * (scale / np.sqrt(square + np.float32(epsilon))), np.float32)


def rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Turn heads [tokens, heads, head_dim] by angles [tokens, head_dim / 2]: pairs are half a head apart."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def attend(query: Floats, key: Floats, value: Floats, ends: Sequence[int]) -> Floats:
    """Causal attention of each prompt by itself: [tokens, heads * head_dim].

    ``query`` is [tokens, heads, head_dim], ``key`` and ``value`` [tokens, kv_heads, head_dim].
    """
    out = np.empty_like(query)
    group = query.shape[1] // key.shape[1]
    for part in _spans(ends):
        length = part.stop - part.start
        later = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        for head in range(query.shape[1]):
            seen = head // group
            scores = query[part, head] @ key[part, seen].T
            scores /= np.float32(np.sqrt(query.shape[-1]))
            scores += later
            out[part, head] = _softmax(scores) @ value[part, seen]
    return out.reshape(len(out), -1)


def gated(x: Floats, matrix: Floats) -> Floats:
    """SiLU of the products with the upper half of ``matrix``, times those with the lower: [tokens, size]."""
    size = len(matrix) // 2
    out = np.empty((len(x), size), np.float32)
    for first in range(0, len(x), _TOKENS):
        part = slice(first, first + _TOKENS)
        gate, up = np.split(x[part] @ matrix.T, 2, axis=1)
        # 1 + e^-x overflows to infinity where SiLU is 0
        with np.errstate(over="ignore"):
            out[part] = gate / (1 + np.exp(-gate)) * up
    return out


def _spans(ends: Sequence[int]) -> Iterator[slice]:
    yield from (slice(first, end) for first, end in zip([0, *ends[:-1]], ends, strict=True))


def _softmax(scores: Floats) -> Floats:
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores
