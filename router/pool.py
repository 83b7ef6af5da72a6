"""Backends in memory: loaded on first use; when it gets full, the one used least recently is let go."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import backends
from backends.base import Backend, BackendError, Capability, Runtime
from backends.machine import total_memory
from backends.qwen3vl import Config
from backends.store.recipe import Recipe
from router.estimates import footprint
from router.models import SILENT, Listener, Model, ensure_export, ensure_packed, export_place

RETRY_SECONDS = 60.0  # a backend that did not load is not tried again under "auto" for this long


class BackendPool:
    """At most ``budget`` bytes of backends, by what each ``needs``; safe to use from many threads.

    Whoever answers with a backend keeps it until it is done, also when it is let go here. One that takes more
    than the budget is loaded all the same, by itself.
    """

    def __init__(
        self, load: Callable[[str], Backend], needs: Callable[[str], int], budget: int | None
    ) -> None:
        self._load, self._needs, self._budget = load, needs, budget
        self._held: dict[str, Backend] = {}  # the one used last stands last
        self._failed: dict[str, tuple[float, BackendError]] = {}
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def get(self, name: str, *, again: bool = True) -> Backend:
        """The backend, loaded now if it is not in memory; other threads go on with theirs meanwhile.

        BackendError: it did not load; the same one for a while, unless ``again``.
        """
        with self._lock:
            own = self._loading.setdefault(name, threading.Lock())
        with own:
            if (held := self._used(name)) is not None:
                return held
            if not again:
                self._refuse_failed(name)
            self._make_room(name)
            try:
                loaded = self._load(name)
            except BackendError as error:
                self._failed[name] = time.monotonic(), error
                raise
            with self._lock:
                self._held[name] = loaded
            return loaded

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._held.clear()
        gc.collect()

    def _used(self, name: str) -> Backend | None:
        with self._lock:
            if name in self._held:
                self._held[name] = self._held.pop(name)
            return self._held.get(name)

    def _refuse_failed(self, name: str) -> None:
        at, error = self._failed.get(name, (0.0, None))
        if error is not None and time.monotonic() - at < RETRY_SECONDS:
            raise error

    def _make_room(self, name: str) -> None:
        if self._budget is None:
            return
        with self._lock:
            needs = {held: self._needs(held) for held in (*self._held, name)}
            gone = []
            while self._held and sum(needs.values()) > self._budget:
                oldest = next(iter(self._held))
                gone.append(self._held.pop(oldest))
                del needs[oldest]
        if gone:
            gone.clear()
            gc.collect()  # a model may stand in a circle of references


@dataclass(frozen=True)
class ModelBackends:
    """A model, and how its backends are to run."""

    model: Model
    runtime: Runtime
    recipe: Recipe | None = None
    listener: Listener = SILENT
    make_exports: bool = True  # whether a model that has no export yet gets one when a backend needs it

    def available(self) -> Mapping[str, Capability]:
        """What each backend can do; an export that was made meanwhile is noticed."""
        return {name: self._with_export(found) for name, found in self._found.items()}

    def load(self, name: str) -> Backend:
        """Load a backend, after its export was made if need be. BackendError: why it cannot be."""
        found = self.available()[name]
        if found.problem is not None:
            raise BackendError(
                f"backend '{name}' cannot be used: {found.problem}", code="backend_unavailable"
            )
        return backends.load(name, *self.reads(found))

    def reads(self, found: Capability) -> tuple[Path, Runtime]:
        """The folder that a backend reads, and how it runs; exports and packed variants are made first."""
        if not found.traits.reads_export:
            return self.model.folder, self.runtime
        checkpoint = None if self.model.is_export else self.model.folder
        folder = ensure_export(self.model, self.recipe, self.listener)
        packed = ensure_packed(folder, self.runtime.device, self.listener)
        return folder, replace(self.runtime, checkpoint=checkpoint, packed=packed)

    def needs(self, name: str) -> int:
        """Bytes of memory that a backend takes, estimated; 0 where nothing tells."""
        return self._found[name].memory or 0

    @cached_property
    def _found(self) -> Mapping[str, Capability]:
        return {name: self._find(name) for name in backends.names()}

    def _find(self, name: str) -> Capability:
        found = backends.capability(name, self.runtime.device)
        if found.problem is None and self.model.is_export and not found.traits.reads_export:
            return replace(found, problem=f"it reads a checkpoint, and {self.model.folder} is an export")
        try:
            context = Config.read(self.model.folder).text.context
            memory = footprint(self.model, found.traits, self.runtime).total
        except BackendError:
            return found  # whoever loads it says what is wrong with the model
        return replace(found, context=context, memory=memory, problem=found.problem or _too_large(memory))

    def _with_export(self, found: Capability) -> Capability:
        if not found.traits.reads_export:
            return found
        exported = self.model.is_export or self._place.is_dir()
        problem = found.problem
        if problem is None and not exported and not self.make_exports:
            problem = f"there is no export of {self.model.name}: hybrid export {self.model.name}"
        return replace(found, exported=exported, problem=problem)

    @cached_property
    def _place(self) -> Path:
        return export_place(self.model, self.recipe or Recipe())


def _too_large(memory: int) -> str | None:
    total = total_memory()
    if total is None or memory <= total:
        return None
    return f"it takes about {memory / 1e9:.1f} GB of memory, and this machine has {total / 1e9:.1f} GB"
