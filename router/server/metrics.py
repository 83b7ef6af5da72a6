"""What Prometheus is given; names as other servers of language models have them, after ``hybrid_``."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from router.router import Answer
from router.types import Chunk, Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# seconds; an image on a CPU may take minutes, so these end later than those of servers with a GPU
_LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_LABELS = ("backend", "model", "modality")


class Metrics:
    """All of them, in a registry of their own: two services in one process do not mix."""

    def __init__(self, model: str, policy: str) -> None:
        self.model = model
        self.policy = policy
        self.registry = CollectorRegistry()
        self.running = self._gauge("requests_running", "Answers being computed.")
        self.waiting = self._gauge("requests_waiting", "Requests that wait for their turn.")
        self.requests = self._counter("requests", "Answers by how they ended.", "finish_reason")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens of answers.")
        self.image_tokens = self._counter("image_tokens", "Tokens of images.")
        self.prefix_queries = self._counter("prefix_cache_queries", "Tokens looked for in kept caches.")
        self.prefix_hits = self._counter("prefix_cache_hits", "Tokens found in kept caches.")
        self.image_queries = self._counter("mm_cache_queries", "Images looked for in kept caches.")
        self.image_hits = self._counter("mm_cache_hits", "Images that were not encoded again.")
        self.first_token = self._histogram("time_to_first_token_seconds", "Request to first token.", _LONG)
        self.between = self._histogram("inter_token_latency_seconds", "Between two tokens.", _SHORT)
        self.whole = self._histogram("e2e_request_latency_seconds", "Request to end.", _LONG)
        self.queued = self._histogram("request_queue_time_seconds", "Waiting for a turn.", _LONG)
        self.prefill = self._histogram("request_prefill_time_seconds", "Reading a prompt.", _LONG)
        self.decode = self._histogram("request_decode_time_seconds", "Writing an answer.", _LONG)
        self.vision = self._histogram("vision_encode_seconds", "Encoding images.", _LONG)
        self.decisions = Counter(
            "hybrid_route_decisions",
            "Which way requests went.",
            ("policy", "reason"),
            registry=self.registry,
        )
        self.fallbacks = Counter(
            "hybrid_fallbacks", "Requests for which a backend did not load.", registry=self.registry
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(f"hybrid_{name}", description, _LABELS, registry=self.registry)

    def _counter(self, name: str, description: str, *more: str) -> Counter:
        return Counter(f"hybrid_{name}", description, (*_LABELS, *more), registry=self.registry)

    def _histogram(self, name: str, description: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(
            f"hybrid_{name}", description, _LABELS, buckets=tuple(buckets), registry=self.registry
        )


class RequestMetrics:
    """Measures one request."""

    def __init__(self, metrics: Metrics) -> None:
        self.stats: Stats | None = None
        self.finish = "error"
        self._metrics = metrics
        self._arrived = self._last = time.monotonic()
        self._labels: tuple[str, str, str] | None = None  # known when it is decided who answers
        self._queued: float | None = None
        self._gauge: Gauge | None = None  # in which the request is counted now
        self._chunks = 0

    def on_prepared(self, answer: Answer) -> None:
        """It is known who answers; the request waits for its turn."""
        modality = "text" if answer.prompt.grid is None else "image"
        self._labels = (answer.decision.backend, self._metrics.model, modality)
        first, *more = answer.decision.reason.split("; ")
        # up to the comma: what follows it may hold a figure, and every other text is another series
        self._metrics.decisions.labels(self._metrics.policy, first.split(",")[0]).inc()
        if any("did not load" in clause for clause in more):
            self._metrics.fallbacks.inc()
        self._queued = time.monotonic()
        self._move_to(self._metrics.waiting)

    def on_start(self) -> None:
        """The request's turn has come: it computes."""
        self._last = time.monotonic()
        if self._queued is not None:
            self._observe(self._metrics.queued, self._last - self._queued)
        self._move_to(self._metrics.running)

    def on_chunk(self, chunk: Chunk) -> None:
        """A chunk was computed and read."""
        now = time.monotonic()
        first = self._chunks == 0
        since, histogram = (
            (self._arrived, self._metrics.first_token) if first else (self._last, self._metrics.between)
        )
        self._observe(histogram, now - since)
        self._last = now
        self._chunks += 1
        if chunk.finish is not None:
            self.finish, self.stats = chunk.finish, chunk.stats

    def on_end(self, finish: str | None = None) -> None:
        """Nothing more comes. ``finish``: why, where it is not what the last chunk says."""
        self.finish = finish or self.finish
        self._move_to(None)
        labels = self._labels or ("", self._metrics.model, "")
        self._metrics.requests.labels(*labels, self.finish).inc()
        if self._labels is not None:
            self._observe(self._metrics.whole, self.seconds)
        if self.stats is not None:
            self._count_answer(self.stats)

    def log_fields(self) -> dict[str, object]:
        """What the log says of the request."""
        if self._labels is None:
            return {}
        fields: dict[str, object] = {"backend": self._labels[0], "finish": self.finish}
        if self.stats is not None:
            fields["prompt_tokens"] = self.stats.prompt_tokens
            fields["image_tokens"] = self.stats.image_tokens
            fields["output_tokens"] = self.stats.output_tokens
            fields["prefill_seconds"] = round(self.stats.prefill_seconds, 4)
            fields["decode_seconds"] = round(self.stats.decode_seconds, 4)
        return fields

    @property
    def seconds(self) -> float:
        """Since the request arrived."""
        return time.monotonic() - self._arrived

    def _count_answer(self, stats: Stats) -> None:
        metrics = self._metrics
        for counter, amount in (
            (metrics.prompt_tokens, stats.prompt_tokens),
            (metrics.generation_tokens, stats.output_tokens),
            (metrics.image_tokens, stats.image_tokens),
            (metrics.prefix_queries, stats.prompt_tokens),
            (metrics.prefix_hits, stats.cached_tokens),
            (metrics.image_queries, len(stats.resized)),
            (metrics.image_hits, stats.cached_images),
        ):
            counter.labels(*self._labels or ()).inc(amount)
        self._observe(metrics.prefill, stats.prefill_seconds)
        self._observe(metrics.decode, stats.decode_seconds)
        if stats.image_tokens:
            self._observe(metrics.vision, stats.vision_seconds)

    def _observe(self, histogram: Histogram, seconds: float) -> None:
        if self._labels is not None:
            histogram.labels(*self._labels).observe(seconds)

    def _move_to(self, gauge: Gauge | None) -> None:
        if self._labels is None:
            return
        if self._gauge is not None:
            self._gauge.labels(*self._labels).dec()
        if gauge is not None:
            gauge.labels(*self._labels).inc()
        self._gauge = gauge
