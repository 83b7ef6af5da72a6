"""What a model must at least read and compute, by its shape: the numbers behind a roofline.

A multiplication and an addition are two operations. With L layers of hidden size d, intermediate size m,
H heads of D values and G heads of keys and values, and a vocabulary of V::

    P        = L (2 d H D + 2 d G D + 3 d m)                 weights of the layers' matrices
    prefill  = 2 P T + 2 d V + 4 L H D (sum of the tokens that each of the T tokens attends to)
    decode   = bytes of the layers' matrices and of the head + 2 L G D (tokens of context) bytes of a value

and for p patches of a picture, in a tower of N blocks of hidden size h, intermediate size n, with K DeepStack
mergers beside the main one and outputs of d::

    vision   = 2 p (1536 h + N (4 h h + 2 h n)) + (1 + K) 2 (p / 4) (4 h 4 h + 4 h d) + 4 N h p p
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.qwen3vl.config import PATCH_VALUES, TextConfig, VisionConfig

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Traffic:
    """Bytes that decoding one token reads."""

    weights: int
    cache_per_token: int  # for each token of context

    def bytes(self, context: float) -> float:
        """At ``context`` tokens."""
        return self.weights + self.cache_per_token * context


def layer_weights(text: TextConfig) -> int:
    """P: how many values the matrices of all decoder layers have."""
    queries, keys = text.heads * text.head_dim, text.kv_heads * text.head_dim
    return text.layers * (
        2 * text.hidden * queries + 2 * text.hidden * keys + 3 * text.hidden * text.intermediate
    )


def plain_traffic(text: TextConfig, value_bytes: int) -> Traffic:
    """Of weights and a cache that are held value by value, ``value_bytes`` each."""
    weights = (layer_weights(text) + text.hidden * text.vocab) * value_bytes
    return Traffic(weights, cache_values(text) * value_bytes)


def cache_values(text: TextConfig) -> int:
    """Keys and values that a token leaves in the cache."""
    return 2 * text.layers * text.kv_heads * text.head_dim


def prefill_operations(text: TextConfig, tokens: float, cached: float = 0) -> float:
    """To read ``tokens`` after ``cached`` ones that are known already, and score what comes next."""
    attended = tokens * cached + tokens * (tokens + 1) / 2
    products = 2 * layer_weights(text) * tokens + 2 * text.hidden * text.vocab
    return products + 4 * text.layers * text.heads * text.head_dim * attended


def vision_operations(vision: VisionConfig, patches: float) -> float:
    """To encode one picture of ``patches``."""
    hidden, merged = vision.hidden, vision.hidden * vision.merge**2
    block = 4 * hidden * hidden + 2 * hidden * vision.intermediate
    towers = 2 * patches * (PATCH_VALUES * hidden + vision.depth * block)
    mergers = 1 + len(vision.deepstack)
    merging = mergers * 2 * (patches / vision.merge**2) * (merged * merged + merged * vision.out_hidden)
    return towers + merging + 4 * vision.depth * hidden * patches * patches
