"""A report beside an earlier one: the ratio of every figure, and what else is not the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.base import RequestError
from router.bench.metrics import METRICS
from router.bench.report import FORMAT, BenchReport
from router.bench.tables import NONE, table

_SHAPES = ("prompt_tokens", "output_tokens", "cached_tokens")
_TOLERANCE = 0.1  # how far shapes may be apart: follow-ups contain answers, which are never the same
_SHOWN = (
    "vision_patches_per_second",
    "prefill_tokens_per_second",
    "ttft_ms",
    "decode_tokens_per_second",
    "all_streams_tokens_per_second",
    "total_seconds",
    "peak_megabytes",
)


@dataclass(frozen=True)
class Ratios:
    """One target at one workload: how many times better each figure is than it was; below 1 it is worse."""

    target: str
    workload: str
    times: Mapping[str, float]  # by the name of the metric


@dataclass(frozen=True)
class Comparison:
    """This report against an earlier one."""

    date: str  # of the earlier one
    commit: str | None
    differences: tuple[str, ...]  # what else is not the same, so that ratios say less
    ratios: tuple[Ratios, ...]

    def fields(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def markdown(self) -> str:
        """A section for the end of the report."""
        code = f", commit {self.commit}" if self.commit else ""
        parts = [f"## Against {self.date}{code}", "How many times better than then; below 1 is worse."]
        if self.differences:
            parts.append("\n".join(f"> not the same: {difference}" for difference in self.differences))
        names = [name for name in _SHOWN if any(name in row.times for row in self.ratios)]
        labels = {metric.name: metric.label.partition(",")[0] for metric in METRICS}
        lines = [["workload", "backend", *(labels[name] for name in names)]]
        for row in self.ratios:
            cells = (f"{row.times[name]:.2f}x" if name in row.times else NONE for name in names)
            lines.append([row.workload, row.target, *cells])
        parts.append(table(lines, left=2) if len(lines) > 1 else "There is no row that both have.")
        return "\n\n".join(parts) + "\n"


def read(file: Path) -> dict[str, Any]:
    """A report that ``--save F.json`` wrote; RequestError: it is none, or cannot be read."""
    try:
        fields = json.loads(file.read_text("utf-8"))
        is_report = fields["format"] == FORMAT and fields["program"] == "hybrid bench"
        _ = _rows_of(fields), fields["date"], fields["commit"], *_differences(fields, fields)
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror}", param="compare") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        is_report = False
    if not is_report:
        raise RequestError(
            f"{file} is not a report of this version; compare with what --save F.json wrote", param="compare"
        )
    return dict(fields)


def compare(report: BenchReport, old: Mapping[str, Any]) -> Comparison:
    """``report`` against an earlier one as `read` gives it."""
    before = _rows_of(old)
    ratios, differences = [], list(_differences(report.fields(), old))
    for row in report.rows:
        then = before.get((row.target, row.workload))
        if then is None or not row.measured:
            continue
        now = {name: spread.median for name, spread in row.measured.items()}
        ratios.append(Ratios(row.target, row.workload, _times(now, then)))
        differences += [
            f"{name} of {row.target} at '{row.workload}' was {then.get(name, 0):g}, is {now.get(name, 0):g}"
            for name in _SHAPES
            if abs(now.get(name, 0) - then.get(name, 0)) > _TOLERANCE * then.get(name, 0)
        ]
    return Comparison(str(old["date"]), old["commit"], tuple(differences), tuple(ratios))


def _times(now: Mapping[str, float], then: Mapping[str, float]) -> dict[str, float]:
    times = {}
    for metric in METRICS:
        new, old = now.get(metric.name), then.get(metric.name)
        if metric.more_is_better is not None and new and old:
            times[metric.name] = new / old if metric.more_is_better else old / new
    return times


def _rows_of(fields: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
    # earlier versions wrote "1 picture 448x448"; what was measured is the same
    return {
        (row["target"], row["workload"].replace("picture", "image")): {
            name: float(spread["median"]) for name, spread in row["measured"].items()
        }
        for row in fields["rows"]
    }


def _differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[str]:
    for part, names in _COMPARED.items():
        for name in names:
            was, now = (_plain(fields[part].get(name)) for fields in (old, new))
            if was != now:
                yield f"{part} {name} was {_words(was)}, is {_words(now)}"
    for name in sorted({*new["versions"], *old["versions"]}):
        was, now = old["versions"].get(name), new["versions"].get(name)
        if was != now:
            yield f"{name} was {was or 'not there'}, is {now or 'not there'}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _words(value: Any) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )


_COMPARED = {
    "machine": ("cpu", "cores", "all_cores", "memory_bytes", "instructions"),
    "setting": ("model", "revision", "threads", "device", "dtype", "vision"),
}
