"""A backend as a benchmark's engine: loaded in this process, and every part of an answer timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import backends
from backends.base import RequestError, Runtime
from backends.machine import peak_bytes
from router.bench.engine import Facts, Sample, TimedAnswer
from router.detokenize import TextStream
from router.generate import generate
from router.prompt import PromptBuilder
from router.sampling import BUILT_IN
from router.types import Chunks, Message, Stats


@dataclass(frozen=True)
class Local:
    """What a process must know to load a backend: values that can be sent to it."""

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

    def __init__(self, what: Local) -> None:
        started = time.perf_counter()
        self.backend = backends.load(what.name, what.folder, what.runtime)
        seconds = time.perf_counter() - started
        self.builder = PromptBuilder.read(what.model)
        self.facts = Facts(
            load_seconds=seconds,
            numbers=what.numbers or self.backend.dtype,
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
        said, arrivals, stats = _listen(generate(self.backend, prompt, sampling, text, self.builder.eos))
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
        return TimedAnswer(said, sample)


def _listen(chunks: Chunks) -> tuple[str, list[float], Stats]:
    """The whole text, when each token came, and what the answer took."""
    arrivals: list[float] = []
    pieces: list[str] = []
    with closing(chunks):
        for chunk in chunks:
            arrivals.append(time.perf_counter())
            pieces.append(chunk.text)
    assert chunk.stats is not None
    return "".join(pieces), arrivals, chunk.stats
