"""All that was found out about a machine, and how it is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import backends
from backends.base import BackendError, Runtime, Traits
from router.doctor.trial import Trial, attempt
from router.estimates import Footprint, Verdict, footprint
from router.machine import HostMachine, Package, packages
from router.models import EMBEDDED, Entry, Model, describe, find, local_models
from router.types import capability_fields


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
    kept = list(local_models())
    if model.folder.resolve() not in {entry.path.resolve() for entry in kept}:
        yield describe(model)
    yield from kept


def _fits(entry: Entry, usable: Mapping[str, Traits], runtime: Runtime, free: int | None) -> ModelFits:
    if entry.kind == "damaged export":
        return ModelFits(entry, (), "damaged", f"hybrid models rm {entry.name}")
    model = Model(entry.name, entry.path, entry.revision)
    reading = {name: traits for name, traits in usable.items() if traits.reads_export or not model.is_export}
    try:
        needs = {name: footprint(model, traits, runtime) for name, traits in reading.items()}
    except BackendError as error:
        return ModelFits(entry, (), str(error))
    fits = (Fit(name, need, None if free is None else need.verdict(free)) for name, need in needs.items())
    return ModelFits(entry, tuple(fits))


LIMIT_SECONDS = 120.0  # for each of loading and answering


@dataclass(frozen=True)
class DoctorReport:
    """One look at this machine."""

    machine: HostMachine
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
                said = ", ".join(f"{name} {text!r}" for name, text in first.items())
                return (
                    f"the answers about {subject} begin differently ({said}): rounding may do that, a wrong "
                    f"computation too; 'hybrid verify {self._model} --against torch' tells them apart"
                )
        return None

    @property
    def _model(self) -> str:
        """The model, as a command finds it."""
        return EMBEDDED if self.model.name == EMBEDDED else str(self.model.folder)

    def fields(self) -> dict[str, Any]:
        """As JSON holds it."""
        fields = asdict(self)
        fields["machine"]["disk"]["home"] = str(self.machine.disk.home)
        fields["machine"]["advice"] = self.machine.advice
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
    tell: Callable[[str], None] = lambda _stage: None,
) -> DoctorReport:
    """Look at this machine, and try every backend with ``model``, the embedded one by default.

    Each backend gets a process of its own, in which with ``run`` it loads the model and gives one token; none
    of them is imported here. ``tell`` is told what goes on.
    """
    model, runtime = model or find(), runtime or Runtime()
    machine, libraries = HostMachine.read(), packages()
    trials = tuple(
        attempt(name, model, runtime, run=run, limit_seconds=limit_seconds, tell=tell)
        for name in backends.offered()
    )
    usable = {
        trial.backend: trial.capability.traits
        for trial in trials
        if trial.capability is not None
        and trial.capability.problem is None
        and not trial.for_tests  # which reads no weights
    }
    models = every_fit(model, usable, runtime, machine.memory_available)
    return DoctorReport(machine, libraries, models, model, trials)


def _trial(trial: Trial) -> dict[str, Any]:
    capability = trial.capability
    fields = None if capability is None else capability_fields(capability.traits, capability.problem)
    return asdict(trial) | {"capability": fields}


def _fit(fit: Fit) -> dict[str, Any]:
    return asdict(fit) | {"need": asdict(fit.need) | {"total": fit.need.total}}
