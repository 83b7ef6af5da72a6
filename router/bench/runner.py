"""One benchmark run from the idle check to the report, which can be had at any time, also of half a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from backends.base import BackendError
from backends.qwen3vl import Config
from router.bench.contenders import Contender
from router.bench.engine import Facts
from router.bench.idle import IdleWatch, busy_notes, is_busy
from router.bench.process import Target, workers
from router.bench.report import BenchReport, Row, Setting, rows, standing, with_shares
from router.bench.roofline import Rates, Shares, measure_rates, shares
from router.bench.schedule import Outcome, Step, load, run, steps
from router.bench.workloads import Workload, Writer
from router.machine import Machine
from router.models import SILENT, Listener
from router.packages import commit, versions

IDLE_SECONDS = 1.0  # of looking at others before anything of ours computes


@dataclass(frozen=True)
class BenchPlan:
    """What is to be measured."""

    setting: Setting
    contenders: tuple[Contender, ...]
    workloads: tuple[Workload, ...]
    writer: Writer
    config: Config | None  # of the model; None where only servers are measured
    roofline: bool = True


class Bench:
    """Measures a plan, and holds what is measured so far."""

    def __init__(self, plan: BenchPlan, listener: Listener = SILENT) -> None:
        self.plan = plan
        self.listener = listener
        self.outcomes: list[Outcome] = []
        self._order: list[Step] = []
        self._total = 0  # steps, with those of processes that are not started yet
        self._complete = False
        self._facts: dict[str, Facts] = {}
        self._problems: dict[str, str] = {}
        self._rates: Rates | None = None
        self._notes: list[str] = []
        self._busy_before: float | None = None
        self._idle_watches: list[IdleWatch] = []

    def run(self) -> None:
        """Measure everything; every process it starts has ended when it returns or raises."""
        machine = Machine.read()
        self._check_idle(machine)
        if self.plan.roofline:
            self._measure_machine(machine)
        targets = [Target(one.name, one.make) for one in self.plan.contenders if one.make is not None]
        for start in range(self.plan.setting.starts):
            self._measure(targets, start)
        self._complete = True

    def report(self) -> BenchReport:
        """Of what is measured so far."""
        machine = Machine.read()
        names = [one.name for one in self.plan.contenders]
        measured_rows = rows(self.outcomes, self.plan.workloads, names)
        report = BenchReport(
            setting=self.plan.setting,
            machine=machine,
            versions=versions(),
            commit=commit(),
            date=datetime.now(UTC).isoformat(" ", "minutes").replace("+00:00", " UTC"),
            workloads=self.plan.workloads,
            standings=tuple(
                standing(
                    one,
                    self._facts.get(one.name),
                    self._problems.get(one.name),
                    [row for row in measured_rows if row.target == one.name],
                )
                for one in self.plan.contenders
            ),
            rows=measured_rows,
            rates=self._rates,
            notes=(
                *self._notes,
                *self._unfinished(),
                *busy_notes(self._busy_before, self._busy_laps(), machine.cores_present),
            ),
        )
        return with_shares(report, self._shares(measured_rows))

    def problems(self) -> Mapping[str, str]:
        """Why each target that cannot run cannot."""
        return {
            one.name: problem
            for one in self.plan.contenders
            if (problem := one.problem or self._problems.get(one.name)) is not None
        }

    def _check_idle(self, machine: Machine) -> None:
        """Warn when others compute: what they take is missing from every figure."""
        self.listener.progress("looking whether the machine is idle", 0, 0)
        watch = IdleWatch()
        time.sleep(IDLE_SECONDS)
        self._busy_before = watch.lap("before")
        if self._busy_before is not None and is_busy(self._busy_before):
            self.listener.notice(
                f"other processes use {self._busy_before:.2f} of {machine.cores_present} cores: the figures "
                "will be lower than those of an idle machine, and less steady"
            )

    def _measure(self, targets: Sequence[Target], start: int) -> None:
        """Start a process for each target, take every step with them, and end them."""
        setting = self.plan.setting
        with workers(targets) as started:
            facts, problems = load(started, lambda text: self.listener.progress(text, 0, 0))
            self._facts, self._problems = facts | self._facts, problems | self._problems
            ready = {name: worker for name, worker in started.items() if name in facts}
            self._idle_watches.append(IdleWatch(worker.pid for worker in started.values()))
            order = steps(self.plan.workloads, list(ready), setting.warmup, setting.repeats, start)
            self._order += order
            self._total = len(self._order) + len(order) * (setting.starts - start - 1)
            for outcome in run(order, ready, self.plan.writer, self._idle_watches[-1]):
                self.outcomes.append(outcome)
                self._report_progress(outcome)

    def _measure_machine(self, machine: Machine) -> None:
        self.listener.progress("measuring the machine", 0, 0)
        try:
            self._rates = measure_rates(self.plan.setting.threads, machine.cache_bytes)
        except BackendError as error:
            self._notes.append(f"there is no roofline: {error}")

    def _steps_done(self) -> int:
        """Steps that are behind; those of a workload that failed were passed over."""
        last = self.outcomes[-1].step if self.outcomes else None
        return self._order.index(last) + 1 if last is not None else 0

    def _unfinished(self) -> list[str]:
        if self._complete or not self._order:
            return []
        missing = self._total - self._steps_done()
        return [f"the run was stopped, with {missing} of {self._total} turns not taken"]

    def _busy_laps(self) -> dict[str, float]:
        # a server on this machine would be taken for a stranger
        serving = any(self._facts[name].peak_bytes is None for name in self._facts)
        laps: dict[str, float] = {}
        for watch in () if serving else self._idle_watches:
            for name, used in watch.laps.items():
                laps[name] = max(laps.get(name, 0.0), used or 0.0)
        return laps

    def _report_progress(self, outcome: Outcome) -> None:
        step = outcome.step
        repeat = "warming up" if step.repeat < 1 else f"repeat {step.repeat} of {self.plan.setting.repeats}"
        self.listener.progress(
            f"{step.target}, {step.workload.name}, {repeat}", self._steps_done(), self._total
        )

    def _shares(self, rows: Sequence[Row]) -> dict[tuple[str, str], Shares]:
        if self._rates is None or self.plan.config is None:
            return {}
        reached = {}
        for one in self.plan.contenders:
            facts = self._facts.get(one.name)
            if facts is None or facts.load_seconds is None or facts.device != "cpu":
                continue  # a server, or a device that was not measured
            traffic = one.traffic(self.plan.config.text, facts)
            for row, workload in _with_workloads(rows, self.plan.workloads):
                if row.target == one.name and row.measured:
                    reached[row.target, row.workload] = shares(
                        self.plan.config, workload, row.measured, traffic, self._rates
                    )
        return reached


def _with_workloads(rows: Sequence[Row], workloads: Sequence[Workload]) -> Iterator[tuple[Row, Workload]]:
    by_name = {workload.name: workload for workload in workloads}
    for row in rows:
        yield row, by_name[row.workload]
