"""The backends of one model: what is known of each, and those in memory.

`BackendLoader` knows each backend as a `Candidate` without loading it, and loads the one that is named;
`BackendPool` keeps what was loaded, and lets the one used least recently go when memory gets full.
"""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import backends
from backends.base import Backend, BackendError, Runtime
from backends.machine import total_memory
from backends.qwen3vl import Config, left_out
from backends.store import Recipe
from router.estimates import footprint
from router.models import SILENT, Listener, Model, ensure_export, ensure_packed, export_place
from router.types import Candidate

RETRY_SECONDS = 60.0  # a backend that did not load is not tried again under "auto" for this long


@dataclass(frozen=True)
class BackendLoader:
    """A model, how its backends are to run, and what is known of each before it is loaded."""

    model: Model
    runtime: Runtime
    recipe: Recipe | None = None
    listener: Listener = SILENT
    make_exports: bool = True  # whether a model that has no export yet gets one when a backend needs it

    def candidates(self) -> tuple[Candidate, ...]:
        """What is known of every backend; an export that was made meanwhile is noticed."""
        offered = backends.offered()
        return tuple(
            replace(self._with_export(row), offered=name in offered) for name, row in self._rows.items()
        )

    def load(self, name: str) -> Backend:
        """Load a backend, after its export was made if need be. BackendError: why it cannot be."""
        candidate = self._with_export(self._rows[name])
        if candidate.problem is not None:
            raise BackendError(
                f"backend '{name}' cannot be used: {candidate.problem}", code="backend_unavailable"
            )
        return backends.load(name, *self.prepare(candidate))

    def prepare(self, candidate: Candidate) -> tuple[Path, Runtime]:
        """The folder that a backend reads, and how it runs; exports and packed variants are made first."""
        if not candidate.traits.reads_export:
            self._tell_what_is_left_out()
            return self.model.folder, self.runtime
        checkpoint = None if self.model.is_export else self.model.folder
        folder = ensure_export(self.model, self.recipe, self.listener)
        packed = ensure_packed(folder, self.runtime.device, self.listener)
        return folder, replace(self.runtime, checkpoint=checkpoint, packed=packed)

    def _tell_what_is_left_out(self) -> None:
        try:
            for text in left_out(self.model.folder):
                self.listener.notice(text)
        except BackendError:
            return  # whoever loads it says what is wrong with the model

    def memory(self, name: str) -> int:
        """Bytes that a backend takes while it answers, estimated; 0 where nothing tells."""
        return self._rows[name].memory or 0

    @cached_property
    def _rows(self) -> dict[str, Candidate]:
        return {name: self._row(name) for name in backends.names()}

    def _row(self, name: str) -> Candidate:
        """What does not change while the model is served."""
        capability = backends.capability(name, self.runtime.device)
        row = Candidate(name, capability.traits, capability.problem)
        is_export = self.model.is_export
        if row.traits.reads_export:
            row = replace(row, exported=True if is_export else None)
        elif row.problem is None and is_export:
            return replace(row, problem=f"it reads a checkpoint, and {self.model.folder} is an export")
        try:
            context = Config.read(self.model.folder).text.context
            memory = footprint(self.model, row.traits, self.runtime).total
        except BackendError:
            return row  # whoever loads it says what is wrong with the model
        return replace(row, context=context, memory=memory, problem=row.problem or _too_large(memory))

    def _with_export(self, row: Candidate) -> Candidate:
        """With whether the export that it reads is there now."""
        if not row.traits.reads_export or row.exported:
            return row
        exported, problem = self._export_place.is_dir(), row.problem
        if problem is None and not exported and not self.make_exports:
            problem = f"there is no export of {self.model.name}: hybrid export {self.model.name}"
        return replace(row, exported=exported, problem=problem)

    @cached_property
    def _export_place(self) -> Path:
        return export_place(self.model, self.recipe or Recipe())


def _too_large(memory: int) -> str | None:
    total = total_memory()
    if total is None or memory <= total:
        return None
    return f"it takes about {memory / 1e9:.1f} GB of memory, and this machine has {total / 1e9:.1f} GB"


class BackendPool:
    """Loaded backends that take at most ``budget`` bytes together, None: any; safe to use from many threads.

    Whoever answers with a backend keeps it until it is done, also when it is let go here. One that takes more
    than the budget is loaded all the same, by itself.
    """

    def __init__(self, loader: BackendLoader, budget: int | None) -> None:
        self._loader, self._budget = loader, budget
        self._loaded: dict[str, Backend] = {}  # the one used last stands last
        self._failed: dict[str, tuple[float, BackendError]] = {}
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def candidates(self) -> tuple[Candidate, ...]:
        """What is known of every backend, and which of them are loaded."""
        return tuple(replace(row, loaded=row.backend in self) for row in self._loader.candidates())

    def get(self, name: str, *, again: bool = True) -> Backend:
        """The backend, loaded now if it is not in memory; other threads go on with theirs meanwhile.

        BackendError: it did not load; the same one for a while, unless ``again``.
        """
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            if (loaded := self._used(name)) is not None:
                return loaded
            if not again:
                self._refuse_failed(name)
            self._make_room(name)
            try:
                loaded = self._loader.load(name)
            except BackendError as error:
                self._failed[name] = time.monotonic(), error
                raise
            with self._lock:
                self._loaded[name] = loaded
            return loaded

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._loaded.clear()
        gc.collect()

    def _used(self, name: str) -> Backend | None:
        with self._lock:
            if name in self._loaded:
                self._loaded[name] = self._loaded.pop(name)
            return self._loaded.get(name)

    def _refuse_failed(self, name: str) -> None:
        at, error = self._failed.get(name, (0.0, None))
        if error is not None and time.monotonic() - at < RETRY_SECONDS:
            raise error

    def _make_room(self, name: str) -> None:
        if self._budget is None:
            return
        with self._lock:
            memory = {each: self._loader.memory(each) for each in (*self._loaded, name)}
            released = []
            while self._loaded and sum(memory.values()) > self._budget:
                oldest = next(iter(self._loaded))
                released.append(self._loaded.pop(oldest))
                del memory[oldest]
        if released:
            released.clear()
            gc.collect()  # a model may stand in a circle of references
