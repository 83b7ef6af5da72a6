"""Tokens of several sessions decoded in one run: reading the weights once serves them all.

Calls of `Batcher.decode` meet: the first of them waits a moment for the other sessions that decode, and runs
the step for all. The keys and values of sessions that meet stand in rows of one `Arena`; one that is alone
keeps its own cache and pays nothing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.base import BackendError, Logits
from backends.onnx.cache import Cache, Floats, copy_row
from backends.onnx.decoder import Decoder, check_room

ROWS = 8  # sessions in one run; more take turns
ROW_TOKENS = 16384  # of a row; a session opened for more decodes alone
# Between two tokens of a session lie its sampling and its text, some 3 ms at 150,000 scores
MEET_SECONDS = 0.006
# A session that is read slowly misses steps; its row is computed with the others' and means nothing. After
# this many it gets its cache back
MISSED = 16


@dataclass(eq=False)
class _Job:
    """One session's next token."""

    cache: Cache
    embeddings: Floats  # [1, hidden]
    positions: NDArray[np.int64]  # [3, 1]
    run_options: ort.RunOptions
    done: threading.Event = field(default_factory=threading.Event)
    leads: bool = False  # woken to run the next step
    logits: Logits | None = None
    error: BackendError | None = None


class Arena:
    """Keys and values of up to ROWS sessions, one a row; the rows in use come first."""

    def __init__(self, decoder: Decoder) -> None:
        self.members: list[Cache] = []
        self.missed: dict[Cache, int] = {}  # steps in a row that each member was not in
        self._decoder = decoder
        self._store = decoder.store(ROWS, ROW_TOKENS)
        self._bindings: dict[int, Any] = {}

    def join(self, cache: Cache) -> None:
        """Take a session's keys and values into a row, and free their own pages."""
        assert cache.store is not None
        copy_row(cache.store.arrays, 0, self._store.arrays, len(self.members), cache.tokens)
        cache.store.free()
        self.members.append(cache)

    def leave(self, cache: Cache) -> None:
        """Give a session its keys and values back; the last row takes the place."""
        assert cache.store is not None
        row, last = self.members.index(cache), len(self.members) - 1
        copy_row(self._store.arrays, row, cache.store.arrays, 0, cache.tokens)
        if row != last:
            copy_row(self._store.arrays, last, self._store.arrays, row, self.members[last].tokens)
            self.members[row] = self.members[last]
        del self.members[last], self.missed[cache]
        if not self.members:
            self._store.free()

    def binding(self) -> Any:
        """What a run of all members is bound to."""
        rows = len(self.members)
        if rows not in self._bindings:
            self._bindings[rows] = self._decoder.bind([array[:rows] for array in self._store.arrays])
        return self._bindings[rows]


class Batcher:
    """Runs the next tokens of sessions, together where they meet; safe to use from many threads."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.arena: Arena | None = None
        self._waiting: list[_Job] = []
        self._decoding: set[Cache] = set()  # those that are expected at the next step
        self._led = False  # whether a thread runs a step, or waits to
        self._met = threading.Condition()
        self._running = threading.Lock()  # held during a step: rows do not move under it

    def decode(
        self, cache: Cache, embeddings: Floats, positions: NDArray[np.int64], run_options: ort.RunOptions
    ) -> Logits:
        """The scores after one more token of ``cache``; arguments as of `Decoder.run`."""
        if cache.limit > ROW_TOKENS or cache.store is None:
            return self._decoder.run(cache, embeddings, positions, self._none(1), run_options)
        check_room(cache, cache.tokens + 1)
        job = _Job(cache, embeddings, positions, run_options)
        with self._met:
            self._waiting.append(job)
            self._decoding.add(cache)
            job.leads, self._led = not self._led, True
            self._met.notify_all()
        if not job.leads:
            job.done.wait()
        if job.leads:
            self._lead(job)
        if job.error is not None:
            raise job.error
        assert job.logits is not None
        return job.logits

    def leave(self, cache: Cache) -> None:
        """End a session's part: its cache is its own again. Waits for the step that is running."""
        with self._met:
            self._decoding.discard(cache)
            self._met.notify_all()
        with self._running:
            if self.arena is not None and cache in self.arena.members:
                self.arena.leave(cache)

    def _lead(self, leader: _Job) -> None:
        """Run one step, and hand the lead to a session that came meanwhile."""
        with self._met:
            self._met.wait_for(self._complete, MEET_SECONDS)
            # the leader first: whoever leads is served
            others = [job for job in self._waiting if job is not leader]
            jobs = [leader, *others[: ROWS - 1]]
            self._waiting = others[ROWS - 1 :]
            self._decoding = {job.cache for job in (*jobs, *self._waiting)}
        try:
            with self._running:
                self._step(jobs)
        finally:
            with self._met:
                self._led = bool(self._waiting)
                if self._led:
                    self._waiting[0].leads = True
                    self._waiting[0].done.set()
            for job in jobs:
                job.done.set()

    def _complete(self) -> bool:
        return len(self._waiting) >= min(ROWS, len(self._decoding))

    def _step(self, jobs: list[_Job]) -> None:
        arena = self.arena
        alone = len(jobs) == 1 and (arena is None or jobs[0].cache not in arena.members)
        try:
            if alone:
                (job,) = jobs
                job.logits = self._decoder.run(
                    job.cache, job.embeddings, job.positions, self._none(1), job.run_options
                )
                return
            self._together(jobs)
        except BackendError as error:
            for job in jobs:
                job.error = error

    def _together(self, jobs: list[_Job]) -> None:
        """One run for all members of the arena; those that have no job are computed for nothing."""
        if self.arena is None:
            self.arena = Arena(self._decoder)
        arena, jobs_of = self.arena, {job.cache: job for job in jobs}
        new = [cache for cache in jobs_of if cache not in arena.members]
        for member in [each for each in arena.members if each not in jobs_of]:
            arena.missed[member] += 1
            if arena.missed[member] > MISSED or len(arena.members) + len(new) > ROWS:
                arena.leave(member)
        for cache in new:
            arena.join(cache)
        arena.missed |= dict.fromkeys(jobs_of, 0)
        rows = [jobs_of.get(member) for member in arena.members]
        nothing = np.zeros((1, self._decoder.hidden), np.float32)
        logits = self._decoder.step(
            arena.binding(),
            np.stack([nothing if job is None else job.embeddings for job in rows]),
            np.stack([np.zeros((3, 1), np.int64) if job is None else job.positions for job in rows], 1),
            np.array([member.tokens for member in arena.members]),
        )
        for job, scores in zip(rows, logits, strict=True):
            if job is not None:
                job.cache.tokens += 1
                job.logits = scores

    def _none(self, rows: int) -> list[Floats]:
        return [np.zeros((rows, self._decoder.hidden), np.float32)] * self._decoder.deepstack
