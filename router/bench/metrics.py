"""The figures of a report: what each is called, how it is computed from what was timed, and its spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from router.bench.engine import Measurement, Sample


@dataclass(frozen=True)
class Spread:
    """What a figure came to over several measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The median, the lowest and the highest of at least one value."""
        return cls(float(median(values)), float(min(values)), float(max(values)), len(values))


@dataclass(frozen=True)
class Metric:
    """A figure that every measurement gives one or several values of, or none where it does not apply."""

    name: str  # with its unit, as CSV and JSON have it
    label: str  # with its unit, as tables have it
    formula: str
    values: Callable[[Measurement], Iterable[float]]
    more_is_better: bool | None = False  # None: it is neither good nor bad

    def spread(self, measurements: Sequence[Measurement]) -> Spread | None:
        """Over all of them together; None where it does not apply."""
        values = [value for measurement in measurements for value in self.values(measurement)]
        return Spread.of(values) if values else None


def measured(measurements: Sequence[Measurement]) -> dict[str, Spread]:
    """Every figure that applies, by its name."""
    spreads = {metric.name: metric.spread(measurements) for metric in METRICS}
    return {name: spread for name, spread in spreads.items() if spread is not None}


def _each(value: Callable[[Sample], float | None]) -> Callable[[Measurement], Iterable[float]]:
    """A value of each request, left out where it is None."""
    return lambda measurement: [
        figure for sample in measurement.samples if (figure := value(sample)) is not None
    ]


def _preprocess(sample: Sample) -> float | None:
    return sample.preprocess_seconds * 1000 if sample.preprocess_seconds else None


def _vision(sample: Sample) -> float | None:
    return sample.vision_seconds * 1000 if sample.vision_seconds else None


def _patches_rate(sample: Sample) -> float | None:
    return sample.patches / sample.vision_seconds if sample.vision_seconds and sample.patches else None


def _prefill_rate(sample: Sample) -> float | None:
    seconds = sample.first_token_seconds if sample.prefill_seconds is None else sample.prefill_seconds
    seconds -= sample.vision_seconds
    return (sample.prompt_tokens - sample.cached_tokens) / seconds if seconds > 0 else None


def _decode_rate(sample: Sample) -> float | None:
    seconds = sample.decode_seconds
    return (sample.output_tokens - 1) / seconds if sample.output_tokens > 1 and seconds > 0 else None


def _tpot(sample: Sample) -> float | None:
    return sample.decode_seconds / (sample.output_tokens - 1) * 1000 if sample.output_tokens > 1 else None


def _gaps(measurement: Measurement) -> Iterable[float]:
    return [gap * 1000 for sample in measurement.samples for gap in sample.gaps]


def _throughput(measurement: Measurement) -> Iterable[float]:
    if len(measurement.samples) == 1:
        return []
    return [sum(sample.output_tokens for sample in measurement.samples) / measurement.seconds]


def _peak(measurement: Measurement) -> Iterable[float]:
    return [] if measurement.peak_bytes is None else [measurement.peak_bytes / 1e6]


METRICS = (
    Metric(
        "preprocess_ms",
        "image preprocessing, ms",
        "from pixels to patches, all images",
        _each(_preprocess),
    ),
    Metric("vision_ms", "vision encode, ms", "from patches to features, all images", _each(_vision)),
    Metric(
        "vision_patches_per_second",
        "vision, patches/s",
        "patches of 16 x 16 pixels / vision encode",
        _each(_patches_rate),
        more_is_better=True,
    ),
    Metric(
        "prefill_tokens_per_second",
        "prefill, tok/s",
        "(prompt tokens - cached tokens) / (prefill - vision encode); of a server, over its TTFT",
        _each(_prefill_rate),
        more_is_better=True,
    ),
    Metric(
        "ttft_ms",
        "TTFT, ms",
        "time to first token: from the request to the first token, prompt building and images included",
        _each(lambda sample: sample.first_token_seconds * 1000),
    ),
    Metric(
        "decode_tokens_per_second",
        "decode, tok/s",
        "1 / TPOT; at several streams, of each of them",
        _each(_decode_rate),
        more_is_better=True,
    ),
    Metric(
        "tpot_ms",
        "TPOT, ms",
        "time per output token: (last token - first token) / (output tokens - 1)",
        _each(_tpot),
    ),
    Metric("itl_ms", "ITL, ms", "inter-token latency: each time between two tokens", _gaps),
    Metric(
        "all_streams_tokens_per_second",
        "all streams, tok/s",
        "output tokens of all streams / (from the first request to the last answer)",
        _throughput,
        more_is_better=True,
    ),
    Metric(
        "total_seconds",
        "total, s",
        "from the request to the end of the answer",
        _each(lambda sample: sample.total_seconds),
    ),
    Metric(
        "peak_megabytes",
        "peak memory, MB",
        "most resident memory of the backend's process in the turn, mapped weights included; MB: 10^6 bytes",
        _peak,
    ),
    Metric(
        "patches",
        "patches encoded",
        "of 16 x 16 pixels, after the image was brought to a size the model reads",
        _each(lambda sample: float(sample.patches) if sample.patches else None),
        more_is_better=None,
    ),
    Metric(
        "prompt_tokens",
        "tokens in",
        "of the whole prompt, image places included",
        _each(lambda sample: float(sample.prompt_tokens)),
        more_is_better=None,
    ),
    Metric(
        "cached_tokens",
        "of them cached",
        "read in an earlier turn and kept",
        _each(lambda sample: float(sample.cached_tokens)),
        more_is_better=None,
    ),
    Metric(
        "output_tokens",
        "tokens out",
        "produced; no answer ends before its length",
        _each(lambda sample: float(sample.output_tokens)),
        more_is_better=None,
    ),
)
