"""What this machine could do at best, and how much of it a backend reaches.

What a model must at least read and compute follows from its shape; a multiplication and an addition are two
operations. With L layers of hidden size d, intermediate size m, H heads of D values and G heads of keys and
values, and a vocabulary of V::

    P        = L (2 d H D + 2 d G D + 3 d m)                 weights of the layers' matrices
    prefill  = 2 P T + 2 d V + 4 L H D (sum of the tokens that each of the T tokens attends to)
    decode   = bytes of the layers' matrices and of the head + 2 L G D (tokens of context) bytes of a value

and for p patches of an image, in a tower of N blocks of hidden size h, intermediate size n, with K DeepStack
mergers beside the main one and outputs of d::

    vision   = 2 p (1536 h + N (4 h h + 2 h n)) + (1 + K) 2 (p / 4) (4 h 4 h + 4 h d) + 4 N h p p

Shares of the limits: decode = bytes of a token x tokens per second / bandwidth; prefill and vision =
operations / seconds / the best rate of any matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec

from backends.base import Runtime
from backends.qwen3vl import PATCH_VALUES, Config, TextConfig, VisionConfig
from router.bench.metrics import Spread
from router.bench.process import Process
from router.bench.workloads import Workload

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
    """To encode one image of ``patches``."""
    hidden, merged = vision.hidden, vision.hidden * vision.merge**2
    block = 4 * hidden * hidden + 2 * hidden * vision.intermediate
    towers = 2 * patches * (PATCH_VALUES * hidden + vision.depth * block)
    mergers = 1 + len(vision.deepstack)
    merging = mergers * 2 * (patches / vision.merge**2) * (merged * merged + merged * vision.out_hidden)
    return towers + merging + 4 * vision.depth * hidden * patches * patches


@dataclass(frozen=True)
class Rates:
    """A machine's limits with a number of threads."""

    threads: int
    bandwidth: float  # bytes read per second
    matrices: Mapping[str, float] = field(default_factory=dict)  # operations per second of each product
    notes: tuple[str, ...] = ()  # what could not be measured, and why

    @property
    def best_matrix(self) -> float:
        """The highest rate of all products."""
        return max(self.matrices.values(), default=0.0)


@dataclass(frozen=True)
class Shares:
    """How much of the machine's limits was reached, 1 being all; None where it does not apply."""

    token_bytes: float | None = None  # that decoding a token reads
    decode: float | None = None  # of the bandwidth
    prefill: float | None = None  # of the best matrix rate
    vision: float | None = None  # of the best matrix rate


def measure_rates(threads: int, cache_bytes: int | None) -> Rates:
    """Measure the machine in a process of its own, whose memory is given back; BackendError: it failed."""
    process = Process(partial(measure_here, threads), "bench-roofline")
    try:
        rates: Rates = process.call(cache_bytes)
        return rates
    finally:
        process.close()


def shares(
    config: Config, workload: Workload, measured: Mapping[str, Spread], traffic: Traffic | None, rates: Rates
) -> Shares:
    """What the medians of the ``measured`` figures come to."""
    if workload.streams > 1:
        return Shares()  # read together, they share what one reads alone
    token_bytes = _token_bytes(measured, traffic)
    speed = measured.get("decode_tokens_per_second")
    return Shares(
        token_bytes=token_bytes,
        decode=None if token_bytes is None or speed is None else speed.median * token_bytes / rates.bandwidth,
        prefill=_prefill_share(config, measured, rates),
        vision=_vision_share(config, workload, measured, rates),
    )


def _token_bytes(measured: Mapping[str, Spread], traffic: Traffic | None) -> float | None:
    """At half of the answer."""
    if traffic is None or "prompt_tokens" not in measured:
        return None
    return traffic.bytes(measured["prompt_tokens"].median + measured["output_tokens"].median / 2)


def _prefill_share(config: Config, measured: Mapping[str, Spread], rates: Rates) -> float | None:
    speed = measured.get("prefill_tokens_per_second")
    cached = measured["cached_tokens"].median if "cached_tokens" in measured else 0
    if speed is None or not rates.matrices:
        return None
    tokens = measured["prompt_tokens"].median - cached
    seconds = tokens / speed.median
    return prefill_operations(config.text, tokens, cached) / seconds / rates.best_matrix


def _vision_share(
    config: Config, workload: Workload, measured: Mapping[str, Spread], rates: Rates
) -> float | None:
    patches, milliseconds = measured.get("patches"), measured.get("vision_ms")
    if patches is None or milliseconds is None or not rates.matrices:
        return None
    operations = workload.images * vision_operations(config.vision, patches.median / workload.images)
    return operations / (milliseconds.median / 1000) / rates.best_matrix


def measure_here(threads: int, cache_bytes: int | None) -> Rates:
    """Measure the machine in this process, one thing after the other."""
    from router.bench.rates import bf16_rate, matrix_rates, read_bandwidth

    bandwidth = read_bandwidth(threads, cache_bytes)
    matrices = dict(matrix_rates(Runtime(device="cpu", threads=threads)))
    notes: tuple[str, ...] = ()
    if find_spec("torch") is None:
        notes = ("bf16 products were not measured: pip install 'hybrid-router[torch]'",)
    else:
        matrices["bf16 PyTorch"] = bf16_rate(threads)
    return Rates(threads, bandwidth, matrices, notes)
