"""All prompts through the language model, matrix by matrix: each waits until the one before is rounded.

What a decoder layer does between its matrices is here too, in numpy and float32: RMS norms, rotary turns by
time, row and column, causal grouped-query attention of each prompt by itself, and the gated MLP.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from backends.export.calibration.samples import Floats, States
from backends.export.rotary import axes, inverse_frequencies
from backends.qwen3vl import TextConfig
from backends.store import Weights

MODEL = "model.language_model."
_TOKENS = 512  # gated at once: the product before is three times as wide as what comes out


class Walk:
    """Holds the inputs of the next matrix; memory is that of the states, and of one matrix.

    The order is that of the model: of each layer qkv, out, gate_up and down, then the next layer.
    """

    def __init__(self, states: States, weights: Weights, config: TextConfig) -> None:
        self.ends = states.ends
        self._states = states
        self._weights = weights
        self._config = config
        self._rotary = rotary(states.position_ids, config)
        self._layer = 0
        self._hidden = states.hidden
        self.inputs = self._normed("input_layernorm")  # [tokens, columns] of the next matrix

    def pass_qkv(self, matrix: Floats) -> None:
        """Go on to the attention's output matrix."""
        config = self._config
        heads = (self.inputs @ matrix.T).reshape(len(self.inputs), -1, config.head_dim)
        key_end = config.heads + config.kv_heads
        query, key = (
            rotate(self._normed(f"self_attn.{name}", heads[:, part]), *self._rotary)
            for name, part in (("q_norm", slice(config.heads)), ("k_norm", slice(config.heads, key_end)))
        )
        self.inputs = attend(query, key, heads[:, key_end:], self.ends)

    def pass_out(self, matrix: Floats) -> None:
        """Go on to the MLP's first matrices."""
        self._hidden += self.inputs @ matrix.T
        self.inputs = self._normed("post_attention_layernorm")

    def pass_gate_up(self, matrix: Floats) -> None:
        """Go on to the MLP's last matrix."""
        self.inputs = gated(self.inputs, matrix)

    def pass_down(self, matrix: Floats) -> None:
        """Go on to the next layer; after the last one, to the head."""
        self._hidden += self.inputs @ matrix.T
        if self._layer < len(self._states.deepstack):
            self._hidden[self._states.image_slots] += self._states.deepstack[self._layer]
        self._layer += 1
        last = self._layer == self._config.layers
        self.inputs = self._normed("norm" if last else "input_layernorm")

    def _normed(self, name: str, x: Floats | None = None) -> Floats:
        prefix = MODEL if name == "norm" else f"{MODEL}layers.{self._layer}."
        scale = self._weights.read(f"{prefix}{name}.weight")
        return normalise(self._hidden if x is None else x, scale, self._config.rms_norm_eps)


def rotary(position_ids: NDArray[np.int64], config: TextConfig) -> tuple[Floats, Floats]:
    """Cosine and sine, [tokens, head_dim / 2] each, of the angles for ``position_ids`` [3, tokens]."""
    angles = position_ids[axes(config)].T.astype(np.float32) * inverse_frequencies(config)
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
            shared = head // group  # the key-value head of this group of query heads
            scores = query[part, head] @ key[part, shared].T
            scores /= np.float32(np.sqrt(query.shape[-1]))
            scores += later
            out[part, head] = _softmax(scores) @ value[part, shared]
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
