"""THE loop: prefill, then pick a token, turn it into text, decode it, until there is a reason to stop.

`generate` is the loop, `iterate` the same for an event loop; `Cancellation` ends it from another thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from backends.base import Backend, BackendError, Prefilled, Prompt, Session
from router.detokenize import TextStream
from router.sampling import FREE, NO_RULES, Constraint, ModelRules, Sampler, end_tokens
from router.types import Chunk, Chunks, Finish, Sampling, Stats


class Cancellation:
    """Ends one generation from another thread, in the middle of a prefill too where the backend can."""

    def __init__(self) -> None:
        self._called = threading.Event()
        self._session: Session | None = None
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """End it: the stream raises BackendError ``cancelled``, unless it is at its end already."""
        with self._lock:
            self._called.set()
            if self._session is not None:
                self._session.close()

    def check(self) -> None:
        """BackendError ``cancelled`` once it was called."""
        if self._called.is_set():
            raise BackendError("the answer was cancelled", code="cancelled")

    @contextmanager
    def watching(self, session: Session) -> Iterator[Session]:
        """``session`` for as long as it is open; it is closed in the end."""
        with self._lock:
            self._session = session
        try:
            self.check()
            yield session
        finally:
            with self._lock:
                self._session = None
            session.close()


def generate(
    backend: Backend,
    prompt: Prompt,
    sampling: Sampling,
    text: TextStream,
    eos: frozenset[int],
    cancel: Cancellation | None = None,
    constraint: Constraint = FREE,
    rules: ModelRules = NO_RULES,
) -> Chunks:
    """Answer ``prompt`` with at most ``sampling.max_tokens`` tokens, a chunk for each.

    Every field of ``sampling`` is set and checked. Closing the generator frees the session at once;
    ``cancel`` ends it from another thread. BackendError: it was ended, the backend failed, or its scores are
    not numbers; what came before was already yielded.
    """
    limit = sampling.max_tokens
    assert limit is not None, "the caller fits max_tokens into the context"
    end = end_tokens(sampling, eos)
    sampler = Sampler(sampling, prompt.ids, end, rules=rules)
    cancel = cancel or Cancellation()
    with cancel.watching(backend.open(len(prompt.ids) + limit)) as session:
        clock = _Clock()
        prefilled = session.prefill(prompt)
        logits, prefill_seconds = prefilled.logits, clock.lap()
        count, finish = 0, None
        while finish is None:
            token = sampler.pick(constraint.masked(logits))
            constraint.accept(token)
            scores = sampler.reported(logits, token)
            count += 1
            piece = "" if token in end else text.push(token)
            finish = _finish(token in end or text.stopped or constraint.complete, count == limit)
            if finish is None:
                clock.stop()  # the caller's time is not the model's
                yield Chunk(piece, (token,), scores)
                clock.start()
                cancel.check()
                logits = session.decode(token)
        stats = _stats(backend, prompt, prefilled, count, prefill_seconds, clock.lap())
    yield Chunk(piece + text.flush(), (token,), scores, finish, stats)


def _stats(
    backend: Backend,
    prompt: Prompt,
    prefilled: Prefilled,
    output_tokens: int,
    prefill_seconds: float,
    decode_seconds: float,
) -> Stats:
    return Stats(
        backend=backend.name,
        prompt_tokens=len(prompt.ids),
        image_tokens=prompt.image_tokens,
        output_tokens=output_tokens,
        vision_seconds=prefilled.vision_seconds,
        prefill_seconds=prefill_seconds,
        decode_seconds=decode_seconds,
        resized=prompt.sizes,
        cached_tokens=prefilled.cached_tokens,
        cached_images=prefilled.cached_images,
    )


def _finish(ended: bool, full: bool) -> Finish | None:
    if ended:
        return "stop"
    return "length" if full else None


class _Clock:
    """Seconds of model work, not counting what the caller does between two chunks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.start()

    def start(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self.since

    def lap(self) -> float:
        """Seconds since the last lap."""
        self.stop()
        seconds, self.seconds = self.seconds, 0.0
        self.start()
        return seconds


async def iterate(chunks: Chunks, cancel: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
    """The same chunks. Closing this generator, or cancelling its task, ends the computing within a second."""
    step: asyncio.Future[Chunk | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            # a thread cannot be cancelled: it is told to stop below, and waited for
            chunk = await asyncio.shield(step)
            if chunk is None:
                return
            yield chunk
    finally:
        cancel()
        if step is not None and not step.done():
            await asyncio.wait({step})
            step.exception()  # that it was cancelled is no news
        chunks.close()
