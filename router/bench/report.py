"""What a run found, with what it was found on; as JSON and CSV for programs, and as speeds for policies.

JSON is the lasting form: ``--compare`` reads it, and its keys stay. The speeds are the medians of single
requests about something new; `router.estimates` keeps them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from router.bench.contenders import Contender, Fidelity
from router.bench.engine import Facts, Measurement
from router.bench.metrics import METRICS, Spread, measured
from router.bench.roofline import Rates, Shares
from router.bench.schedule import Outcome
from router.bench.workloads import Workload
from router.estimates import Points, Speed
from router.machine import Machine

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One target at one workload."""

    target: str
    workload: str
    measured: Mapping[str, Spread] = field(default_factory=dict)  # by the name of the metric
    problem: str | None = None
    shares: Shares | None = None


@dataclass(frozen=True)
class Standing:
    """One target as a whole."""

    name: str
    numbers: str = ""  # what it computes with
    load_seconds: float | None = None
    disk_bytes: int | None = None
    peak_bytes: int | None = None  # loading and every request
    fidelity: Fidelity | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Setting:
    """What was asked for, and of what."""

    model: str
    revision: str | None
    command: str
    threads: int
    repeats: int
    warmup: int
    starts: int  # how often each process is started anew, and all repeats are taken
    device: str
    dtype: str
    vision: str

    @property
    def described(self) -> str:
        """How many repeats there are, in words."""
        counted = f"{self.repeats} repeat{'s' * (self.repeats > 1)}"
        return counted if self.starts == 1 else f"{self.starts} times {counted}, each time in new processes"


@dataclass(frozen=True)
class BenchReport:
    """Everything of one run."""

    setting: Setting
    machine: Machine
    versions: Mapping[str, str]
    commit: str | None
    date: str  # ISO 8601, UTC
    workloads: tuple[Workload, ...]
    standings: tuple[Standing, ...]
    rows: tuple[Row, ...]
    rates: Rates | None = None
    notes: tuple[str, ...] = ()  # what a reader must know to trust the figures

    def of(self, workload: Workload) -> list[Row]:
        """The rows of a workload, in the order of the targets."""
        return [row for row in self.rows if row.workload == workload.name]

    def fields(self) -> dict[str, Any]:
        """As JSON holds it."""
        named = [asdict(workload) | {"name": workload.name} for workload in self.workloads]
        fields = asdict(self) | {"workloads": named, "machine": _machine(self.machine)}
        return {"format": FORMAT, "program": "hybrid bench"} | fields


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "cpu": machine.cpu,
        "cores": machine.cores_usable,
        "all_cores": machine.cores_present,
        "memory_bytes": machine.memory_total,
        "cache_bytes": machine.cache_bytes,
        "instructions": machine.instructions,
        "system": machine.system,
    }


def rows(
    outcomes: Iterable[Outcome], workloads: Sequence[Workload], targets: Sequence[str]
) -> tuple[Row, ...]:
    """A row for each target at each workload that was begun; what only warmed up is left out."""
    measurements: dict[tuple[str, str], list[Measurement]] = {}
    problems: dict[tuple[str, str], str] = {}
    for outcome in outcomes:
        key = (outcome.step.workload.name, outcome.step.target)
        measurements.setdefault(key, [])
        if outcome.problem is not None:
            problems[key] = outcome.problem
        elif outcome.measurement is not None and outcome.step.repeat > 0:
            measurements[key].append(outcome.measurement)
    keys = [(workload.name, target) for workload in workloads for target in targets]
    return tuple(
        Row(key[1], key[0], {} if key in problems else measured(measurements[key]), problems.get(key))
        for key in keys
        if key in problems or measurements.get(key)
    )


def standing(contender: Contender, facts: Facts | None, problem: str | None, rows: Sequence[Row]) -> Standing:
    """One target, with the most memory it held in any of its ``rows``."""
    facts = facts or Facts()
    peaks = [row.measured["peak_megabytes"].high * 1e6 for row in rows if "peak_megabytes" in row.measured]
    if facts.peak_bytes is not None:
        peaks.append(facts.peak_bytes)
    return Standing(
        name=contender.name,
        numbers=facts.numbers,
        load_seconds=facts.load_seconds,
        disk_bytes=contender.disk_bytes,
        peak_bytes=int(max(peaks)) if peaks else None,
        fidelity=contender.fidelity,
        problem=contender.problem or problem,
    )


def with_shares(report: BenchReport, shares: Mapping[tuple[str, str], Shares]) -> BenchReport:
    """The report with how much of the machine each (target, workload) reached."""
    rows = tuple(replace(row, shares=shares.get((row.target, row.workload))) for row in report.rows)
    return replace(report, rows=rows)


def speeds(report: BenchReport) -> Mapping[str, Speed]:
    """The medians of each backend that answered a text, without streams and follow-ups."""
    speeds = {}
    for standing in report.standings:
        rows = [
            (workload, row)
            for workload in report.workloads
            for row in report.of(workload)
            if row.target == standing.name and row.measured and workload.is_plain
        ]
        texts = [row for workload, row in rows if not workload.images]
        if texts and standing.load_seconds is not None:
            speeds[standing.name] = Speed(
                load_seconds=standing.load_seconds,
                prefill=_points((_prompt(row), _rate(row, "prefill_tokens_per_second")) for row in texts),
                decode=_points((_context(row), _rate(row, "decode_tokens_per_second")) for row in texts),
                vision=_points(
                    (_patches(row, workload), _rate(row, "vision_patches_per_second"))
                    for workload, row in rows
                    if workload.images
                ),
            )
    return speeds


def _points(pairs: Iterable[tuple[int, float | None]]) -> Points:
    """Ascending, each size once; what has no rate is left out."""
    rates = {at: rate for at, rate in pairs if rate is not None}
    return tuple(sorted(rates.items()))


def _rate(row: Row, metric: str) -> float | None:
    spread: Spread | None = row.measured.get(metric)
    return None if spread is None else spread.median


def _prompt(row: Row) -> int:
    return round(row.measured["prompt_tokens"].median)


def _context(row: Row) -> int:
    """Tokens in the cache at half of the answer, as `Speed.seconds` asks for it."""
    return _prompt(row) + round(row.measured["output_tokens"].median) // 2


def _patches(row: Row, workload: Workload) -> int:
    """Of one image: each is encoded by itself."""
    return round(row.measured["patches"].median / workload.images) if "patches" in row.measured else 0


def as_json(report: BenchReport, comparison: dict[str, Any] | None = None) -> str:
    """Everything."""
    fields = report.fields() | ({} if comparison is None else {"comparison": comparison})
    return json.dumps(fields, ensure_ascii=False, indent=1) + "\n"


def as_csv(report: BenchReport) -> str:
    """A line for each backend at each workload, or for one that could not run at all."""
    lines = [_line(report, standing, row) for standing in report.standings for row in _rows(report, standing)]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _rows(report: BenchReport, standing: Standing) -> list[Row]:
    rows = [row for row in report.rows if row.target == standing.name]
    return rows or [Row(standing.name, "", problem=standing.problem)]


def _line(report: BenchReport, standing: Standing, row: Row) -> dict[str, Any]:
    fidelity, shares = standing.fidelity, row.shares or Shares()
    line: dict[str, Any] = {
        "model": report.setting.model,
        "backend": row.target,
        "workload": row.workload,
        "error_body": None if fidelity is None else fidelity.body,
        "error_outputs": None if fidelity is None else fidelity.outputs,
        "error_head": None if fidelity is None else fidelity.head,
        "error_search": None if fidelity is None else fidelity.search,
        "error_vision": None if fidelity is None else fidelity.vision,
        "load_seconds": standing.load_seconds,
        "disk_bytes": standing.disk_bytes,
    }
    for metric in METRICS:
        spread = row.measured.get(metric.name)
        line[metric.name] = None if spread is None else spread.median
        line[f"{metric.name}_low"] = None if spread is None else spread.low
        line[f"{metric.name}_high"] = None if spread is None else spread.high
    line |= {"decode_share": shares.decode, "prefill_share": shares.prefill, "vision_share": shares.vision}
    line |= {"problem": row.problem, "cpu": report.machine.cpu, "threads": report.setting.threads}
    return line | {"date": report.date, "commit": report.commit}
