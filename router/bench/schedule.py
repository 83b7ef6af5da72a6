"""The order of a run: each target in turn gets the same request, so that all see the same minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from backends.base import BackendError, RequestError
from router.bench.engine import Facts, Measurement
from router.bench.idle import IdleWatch
from router.bench.workloads import Job, Workload, Writer


class LoadedTarget(Protocol):
    """A target, as `router.bench.process.Worker` is one."""

    def load(self) -> Facts:
        """Make it ready."""
        ...

    def measure(self, job: Job) -> Measurement:
        """Answer one job."""
        ...


@dataclass(frozen=True)
class Step:
    """One turn of one target; ``repeat`` counts from 1 at each start, and is below it while warming up."""

    workload: Workload
    target: str
    repeat: int
    start: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a step came to: a measurement, or why there is none."""

    step: Step
    measurement: Measurement | None = None
    problem: str | None = None


def steps(
    workloads: Sequence[Workload], targets: Sequence[str], warmup: int, repeats: int, start: int = 0
) -> list[Step]:
    """For each workload the targets take turns, and each time another one begins."""
    return [
        Step(workload, target, repeat, start)
        for workload in workloads
        for number, repeat in enumerate(range(1 - warmup, repeats + 1))
        for target in _rotated(targets, number)
    ]


def run(
    plan: Sequence[Step], targets: Mapping[str, LoadedTarget], writer: Writer, watch: IdleWatch
) -> Iterator[Outcome]:
    """Take the steps in order; in one round all targets get the same job.

    A workload that a target failed at is not tried with it again. ``watch`` gets a lap for each workload.
    """
    watch.lap("")
    for workload, of_workload in groupby(plan, lambda step: step.workload):
        failed: set[str] = set()
        for _, one_round in groupby(of_workload, lambda step: step.repeat):
            job = writer.job(workload)
            for step in one_round:
                if step.target not in failed:
                    outcome = _measure(step, targets[step.target], job)
                    failed |= {step.target} if outcome.problem is not None else set()
                    yield outcome
        watch.lap(workload.name)


def load(
    targets: Mapping[str, LoadedTarget], tell: Callable[[str], None]
) -> tuple[dict[str, Facts], dict[str, str]]:
    """Load the engines one after the other: what is known of those that did, and why others did not."""
    facts: dict[str, Facts] = {}
    problems: dict[str, str] = {}
    for name, target in targets.items():
        tell(f"{name}: loading")
        try:
            facts[name] = target.load()
        except (RequestError, BackendError) as error:
            problems[name] = str(error)
    return facts, problems


def _measure(step: Step, target: LoadedTarget, job: Job) -> Outcome:
    try:
        return Outcome(step, target.measure(job))
    except (RequestError, BackendError) as error:
        return Outcome(step, problem=str(error))


def _rotated(targets: Sequence[str], number: int) -> list[str]:
    first = number % len(targets) if targets else 0
    return [*targets[first:], *targets[:first]]
