"""What answers in a benchmark and what an answer took: the contract of an engine, and a backend as one.

The figures of a table are functions of a `Sample`'s times, see `router.bench.metrics`. A backend is loaded in
this process, and every part of its answers timed; a server is `router.bench.http_engine`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import backends
from backends.base import RequestError, Runtime
from backends.machine import peak_bytes
from router.detokenize import TextStream
from router.generate import generate
from router.prompt import PromptBuilder
from router.sampling import BUILT_IN
from router.types import Chunks, Message, Stats


@dataclass(frozen=True)
class Sample:
    """One answered request; every time in seconds."""

    prompt_tokens: int  # image places included
    output_tokens: int
    first_token_seconds: float  # from the request to its first token: prompt, images and prefill
    decode_seconds: float  # from the first token to the last
    total_seconds: float
    gaps: tuple[float, ...] = ()  # between each token and the next
    cached_tokens: int = 0  # of the prompt, that were read in an earlier turn
    prefill_seconds: float | None = None  # vision included; None where it cannot be told apart
    vision_seconds: float = 0.0
    patches: int = 0  # that were encoded in ``vision_seconds``
    preprocess_seconds: float = 0.0  # from pixels to patches


@dataclass(frozen=True)
class TimedAnswer:
    """A text, and what it took."""

    text: str
    sample: Sample


@dataclass(frozen=True)
class Measurement:
    """All requests of one job: one, or several at the same time."""

    samples: tuple[Sample, ...]
    seconds: float  # from the first request to the last answer
    peak_bytes: int | None = None  # most memory that the process held meanwhile; None where that is not told


@dataclass(frozen=True)
class Facts:
    """What is known of a target once it is ready."""

    load_seconds: float | None = None  # in a fresh process: libraries imported, weights read
    numbers: str = ""  # what it computes with, in words
    device: str = "cpu"
    peak_bytes: int | None = None  # while loading; None where another process computes, or it is not told


class Engine(Protocol):
    """Something that answers: a backend, a server, or another program's library."""

    facts: Facts

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Answer greedily with exactly ``output_tokens`` tokens, whatever the model would rather end with."""
        ...


@dataclass(frozen=True)
class LocalConfig:
    """What loads a backend: values, which can be sent to another process, and are called there."""

    name: str
    folder: Path  # what the backend reads: the checkpoint, or the export
    model: Path  # the model's own folder: tokenizer, template, limits of images
    runtime: Runtime
    numbers: str = ""  # what its weights are in, where the folder tells

    def __call__(self) -> LocalEngine:
        """Load it."""
        return LocalEngine(self)


class LocalEngine:
    """One backend, loaded; safe to use from as many threads as the backend is."""

    def __init__(self, config: LocalConfig) -> None:
        started = time.perf_counter()
        self.backend = backends.load(config.name, config.folder, config.runtime)
        seconds = time.perf_counter() - started
        self.builder = PromptBuilder.read(config.model)
        self.facts = Facts(
            load_seconds=seconds,
            numbers=config.numbers or self.backend.dtype,
            device=self.backend.device,
            peak_bytes=peak_bytes(),
        )

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Answer greedily with exactly ``output_tokens`` tokens.

        RequestError, BackendError: as the prompt builder and the loop raise them.
        """
        started = time.perf_counter()
        plan = self.builder.plan(tuple(messages))
        if plan.images and not self.backend.traits.sees_images:
            raise RequestError("it reads text only", code="unsupported_image")
        plan.room(output_tokens, None, self.backend.context)
        planned = time.perf_counter()
        prompt = plan.prompt()
        preprocess_seconds = time.perf_counter() - planned if plan.images else 0.0
        # neutral, not as the model's generation_config would have it: all targets do the same
        sampling = replace(BUILT_IN, max_tokens=output_tokens, ignore_eos=True)
        text = TextStream(self.builder.tokenizer.decode)
        answer, arrivals, stats = _timed(generate(self.backend, prompt, sampling, text, self.builder.eos))
        sample = Sample(
            prompt_tokens=stats.prompt_tokens,
            output_tokens=stats.output_tokens,
            first_token_seconds=arrivals[0] - started,
            decode_seconds=stats.decode_seconds,
            total_seconds=time.perf_counter() - started,
            # the last token comes when the session is closed, which is no part of decoding
            gaps=tuple(after - before for before, after in pairwise(arrivals[:-1])),
            cached_tokens=stats.cached_tokens,
            prefill_seconds=stats.prefill_seconds,
            vision_seconds=stats.vision_seconds,
            patches=0 if prompt.patches is None else len(prompt.patches),
            preprocess_seconds=preprocess_seconds,
        )
        return TimedAnswer(answer, sample)


def _timed(chunks: Chunks) -> tuple[str, list[float], Stats]:
    """The whole text, when each token came, and what the answer took."""
    arrivals: list[float] = []
    pieces: list[str] = []
    with closing(chunks):
        for chunk in chunks:
            arrivals.append(time.perf_counter())
            pieces.append(chunk.text)
    assert chunk.stats is not None
    return "".join(pieces), arrivals, chunk.stats
