"""What this machine could do at best, and how much of it a backend reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec

from backends.base import Runtime
from backends.qwen3vl.config import Config
from router.bench.bandwidth import read_bandwidth
from router.bench.costs import Traffic, prefill_operations, vision_operations
from router.bench.metrics import Spread
from router.bench.process import Process
from router.bench.workloads import Workload


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
    process = Process(partial(_measure, threads), "bench-roofline")
    try:
        rates: Rates = process.call(cache_bytes)
        return rates
    finally:
        process.close()


def shares(
    config: Config, workload: Workload, found: Mapping[str, Spread], traffic: Traffic | None, rates: Rates
) -> Shares:
    """What the medians in ``found`` come to; `router.bench.costs` has the formulas."""
    if workload.streams > 1:
        return Shares()  # read together, they share what one reads alone
    read = _token_bytes(found, traffic)
    speed = found.get("decode_tokens_per_second")
    return Shares(
        token_bytes=read,
        decode=None if read is None or speed is None else speed.median * read / rates.bandwidth,
        prefill=_prefill_share(config, found, rates),
        vision=_vision_share(config, workload, found, rates),
    )


def _token_bytes(found: Mapping[str, Spread], traffic: Traffic | None) -> float | None:
    """At half of the answer."""
    if traffic is None or "prompt_tokens" not in found:
        return None
    return traffic.bytes(found["prompt_tokens"].median + found["output_tokens"].median / 2)


def _prefill_share(config: Config, found: Mapping[str, Spread], rates: Rates) -> float | None:
    speed = found.get("prefill_tokens_per_second")
    cached = found["cached_tokens"].median if "cached_tokens" in found else 0
    if speed is None or not rates.matrices:
        return None
    tokens = found["prompt_tokens"].median - cached
    seconds = tokens / speed.median
    return prefill_operations(config.text, tokens, cached) / seconds / rates.best_matrix


def _vision_share(
    config: Config, workload: Workload, found: Mapping[str, Spread], rates: Rates
) -> float | None:
    patches, took = found.get("patches"), found.get("vision_ms")
    if patches is None or took is None or not rates.matrices:
        return None
    operations = workload.pictures * vision_operations(config.vision, patches.median / workload.pictures)
    return operations / (took.median / 1000) / rates.best_matrix


def _measure(threads: int, cache_bytes: int | None) -> Rates:
    """In the process: one thing after the other."""
    from backends.onnx.rates import matrix_rates

    bandwidth = read_bandwidth(threads, cache_bytes)
    matrices = dict(matrix_rates(Runtime(device="cpu", threads=threads)))
    notes: tuple[str, ...] = ()
    if find_spec("torch") is None:
        notes = ("bf16 products were not measured: pip install 'hybrid-router[torch]'",)
    else:
        from backends.torch_rates import bf16_rate

        matrices["bf16 PyTorch"] = bf16_rate(threads)
    return Rates(threads, bandwidth, matrices, notes)
