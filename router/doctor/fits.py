"""Which models this machine's memory holds, with each backend that would answer with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backends.base import BackendError, Capability, Runtime
from router.estimates import Footprint, Verdict, footprint
from router.models import Model
from router.models.inventory import Entry, describe, inventory


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
    model: Model, usable: Mapping[str, Capability], runtime: Runtime, free: int | None
) -> tuple[ModelFits, ...]:
    """``model`` and all that is on this machine, each with the ``usable`` backends and ``free`` bytes."""
    return tuple(_fits(entry, usable, runtime, free) for entry in _entries(model))


def _entries(model: Model) -> Iterable[Entry]:
    kept = list(inventory())
    if model.folder.resolve() not in {entry.path.resolve() for entry in kept}:
        yield describe(model)
    yield from kept


def _fits(entry: Entry, usable: Mapping[str, Capability], runtime: Runtime, free: int | None) -> ModelFits:
    if entry.kind == "damaged export":
        return ModelFits(entry, (), "damaged", f"hybrid models rm {entry.name}")
    model = Model(entry.name, entry.path, entry.revision)
    reading = {name: can for name, can in usable.items() if can.reads_export or not model.is_export}
    try:
        needs = {name: footprint(model, can, runtime) for name, can in reading.items()}
    except BackendError as error:
        return ModelFits(entry, (), str(error))
    fits = (Fit(name, need, None if free is None else need.verdict(free)) for name, need in needs.items())
    return ModelFits(entry, tuple(fits))
