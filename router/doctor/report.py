"""What this machine can run: what is free on it, which models its memory holds, and every backend tried.

`examine` finds it out, without importing a backend: each is tried in a process of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import backends
from backends.base import BackendError, Runtime, Traits
from backends.export.sizes import MEMORY
from backends.machine import available_memory
from router.doctor.trial import LIMIT_SECONDS, Trial, attempt
from router.estimates import Footprint, Verdict, footprint
from router.machine import Machine
from router.models import EMBEDDED, Entry, Model, describe, find, home, local_models
from router.packages import Package, packages
from router.types import capability_fields

EXPORT_BYTES = 1_900_000_000  # of disk: what is asked for to export the 2B shape by the default recipe


@dataclass(frozen=True)
class Disk:
    """Where exports are kept, and how much more fits there."""

    home: Path
    free: int  # bytes
    writable: bool

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """The disk that holds ``folder``, which need not exist yet."""
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        return cls(folder, shutil.disk_usage(nearest).free, writable)


@dataclass(frozen=True)
class Headroom:
    """What is free on the machine now."""

    memory_available: int | None  # bytes that a process can take without swapping; None: that is not told
    disk: Disk

    @classmethod
    def read(cls) -> Headroom:
        """As it is now."""
        return cls(available_memory(), Disk.of(home()))

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do about it; nothing where all is well."""
        advice = []
        if not self.disk.writable:
            advice.append(
                f"nothing can be written in {self.disk.home}: set HYBRID_HOME to a folder of your own"
            )
        elif self.disk.free < EXPORT_BYTES:
            advice.append(
                f"exporting the 2B model takes {EXPORT_BYTES / 1e9:g} GB of disk: make room, "
                "or set HYBRID_HOME"
            )
        if self.memory_available is not None and self.memory_available < MEMORY:
            advice.append("exporting a model takes 1 GB of memory: close other programs")
        return tuple(advice)


@dataclass(frozen=True)
class Fit:
    """One model with one backend."""

    backend: str
    need: Footprint
    verdict: Verdict | None  # None: the free memory is not known


@dataclass(frozen=True)
class ModelFits:
    """One model on this machine, with every backend that reads its kind of folder."""

    entry: Entry
    fits: tuple[Fit, ...] = ()
    problem: str | None = None  # why it cannot be used at all
    advice: str | None = None


def every_fit(
    model: Model, usable: Mapping[str, Traits], runtime: Runtime, free: int | None
) -> tuple[ModelFits, ...]:
    """``model`` and all that is on this machine, each with the ``usable`` backends and ``free`` bytes."""
    return tuple(_fits(entry, usable, runtime, free) for entry in _entries(model))


def _entries(model: Model) -> Iterable[Entry]:
    entries = list(local_models())
    if model.folder.resolve() not in {entry.path.resolve() for entry in entries}:
        yield describe(model)
    yield from entries


def _fits(entry: Entry, usable: Mapping[str, Traits], runtime: Runtime, free: int | None) -> ModelFits:
    if entry.kind == "damaged export":
        return ModelFits(entry, (), "damaged", f"hybrid models rm {entry.name}")
    model = Model(entry.name, entry.path, entry.revision)
    readers = {name: traits for name, traits in usable.items() if traits.reads_export or not model.is_export}
    try:
        needs = {name: footprint(model, traits, runtime) for name, traits in readers.items()}
    except BackendError as error:
        return ModelFits(entry, (), str(error))
    fits = (Fit(name, need, None if free is None else need.verdict(free)) for name, need in needs.items())
    return ModelFits(entry, tuple(fits))


@dataclass(frozen=True)
class DoctorReport:
    """One look at this machine."""

    machine: Machine
    headroom: Headroom
    packages: tuple[Package, ...]
    models: tuple[ModelFits, ...]
    model: Model  # the one that the backends were tried with
    backends: tuple[Trial, ...]

    @property
    def can_answer(self) -> tuple[str, ...]:
        """The backends that answered, or could be asked to."""
        return tuple(trial.backend for trial in self.backends if trial.can_answer)

    @property
    def disagreement(self) -> str | None:
        """What to do where two backends begin the same answer with different tokens; None where none do."""
        for kind, subject in (("text", "a text"), ("image", "an image")):
            first = {
                trial.backend: token.text
                for trial in self.backends
                if not trial.for_tests and (token := getattr(trial, kind))
            }
            if len(set(first.values())) > 1:
                answers = ", ".join(f"{name} {text!r}" for name, text in first.items())
                return (
                    f"the answers about {subject} begin differently ({answers}): rounding may do that, "
                    f"a wrong computation too; 'hybrid verify {self._model} --against torch' tells them apart"
                )
        return None

    @property
    def _model(self) -> str:
        """The model, as a command finds it."""
        return EMBEDDED if self.model.name == EMBEDDED else str(self.model.folder)

    def fields(self) -> dict[str, Any]:
        """As JSON holds it."""
        fields = asdict(self)
        del fields["headroom"]
        fields["machine"] = _machine(self.machine, self.headroom)
        fields["model"]["folder"] = str(self.model.folder)
        fields["models"] = [
            asdict(each) | {"entry": each.entry.fields(), "fits": [_fit(fit) for fit in each.fits]}
            for each in self.models
        ]
        fields["backends"] = [_trial(trial) for trial in self.backends]
        return fields | {"can_answer": self.can_answer, "disagreement": self.disagreement}


def examine(
    model: Model | None = None,
    runtime: Runtime | None = None,
    *,
    run: bool = True,
    limit_seconds: float = LIMIT_SECONDS,
    on_stage: Callable[[str], None] = lambda _stage: None,
) -> DoctorReport:
    """Look at this machine, and try every backend with ``model``, the embedded one by default.

    Each backend gets a process of its own, in which with ``run`` it loads the model and gives one token; none
    of them is imported here. ``on_stage`` is called with what goes on.
    """
    model, runtime = model or find(), runtime or Runtime()
    machine, headroom, libraries = Machine.read(), Headroom.read(), packages()
    trials = tuple(
        attempt(name, model, runtime, run=run, limit_seconds=limit_seconds, on_stage=on_stage)
        for name in backends.offered()
    )
    usable = {
        trial.backend: trial.capability.traits
        for trial in trials
        if trial.capability is not None
        and trial.capability.problem is None
        and not trial.for_tests  # which reads no weights
    }
    models = every_fit(model, usable, runtime, headroom.memory_available)
    return DoctorReport(machine, headroom, libraries, models, model, trials)


def _machine(machine: Machine, headroom: Headroom) -> dict[str, Any]:
    """The machine and what is free on it, as one object."""
    return {
        "system": machine.system,
        "python": platform.python_version(),
        "processor": machine.processor.name,
        "architecture": machine.processor.architecture,
        "instruction_sets": [asdict(each) for each in machine.instruction_sets],
        "cores_usable": machine.cores_usable,
        "cores_present": machine.cores_present,
        "memory_total": machine.memory_total,
        "memory_available": headroom.memory_available,
        "disk": asdict(headroom.disk) | {"home": str(headroom.disk.home)},
        "advice": headroom.advice,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    capability = trial.capability
    fields = None if capability is None else capability_fields(capability.traits, capability.problem)
    return asdict(trial) | {"capability": fields}


def _fit(fit: Fit) -> dict[str, Any]:
    return asdict(fit) | {"need": asdict(fit.need) | {"total": fit.need.total}}
