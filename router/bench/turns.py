"""Takes one turn of a workload with an engine: one request, several at once, or a follow-up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from router.bench.engine import Engine, Turn
from router.bench.memory import peak_bytes, reset_peak
from router.bench.workloads import Job
from router.types import Message


def take(engine: Engine, job: Job) -> Turn:
    """Answer the job's requests and time them; the first turn of a follow-up is answered before the clock."""
    count = job.workload.output_tokens
    asked = [_continued(engine, messages, job.question, count) for messages in job.conversations]
    reset_peak()
    started = time.perf_counter()
    if len(asked) == 1:
        samples = [engine.answer(asked[0], count).sample]
    else:
        with ThreadPoolExecutor(len(asked)) as streams:
            samples = [answer.sample for answer in streams.map(lambda m: engine.answer(m, count), asked)]
    seconds = time.perf_counter() - started
    if job.question is not None:
        # its pictures were encoded in the first turn
        samples = [replace(sample, patches=0) for sample in samples]
    # who computes in another process holds nothing here
    return Turn(tuple(samples), seconds, None if engine.facts.peak_bytes is None else peak_bytes())


def _continued(
    engine: Engine, messages: Sequence[Message], question: str | None, count: int
) -> Sequence[Message]:
    if question is None:
        return messages
    answer = engine.answer(messages, count).text
    return (*messages, Message.of("assistant", answer), Message.of("user", question))
