"""A report as JSON and as CSV, for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from router.bench.metrics import METRICS
from router.bench.report import BenchReport, Row, Standing
from router.bench.roofline import Shares


def as_json(report: BenchReport, comparison: dict[str, Any] | None = None) -> str:
    """Everything, the lasting form: `--compare` reads it."""
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
    own = [row for row in report.rows if row.target == standing.name]
    return own or [Row(standing.name, "", problem=standing.problem)]


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
        found = row.measured.get(metric.name)
        line[metric.name] = None if found is None else found.median
        line[f"{metric.name}_low"] = None if found is None else found.low
        line[f"{metric.name}_high"] = None if found is None else found.high
    line |= {"decode_share": shares.decode, "prefill_share": shares.prefill, "vision_share": shares.vision}
    line |= {"problem": row.problem, "cpu": report.machine.cpu, "threads": report.setting.threads}
    return line | {"date": report.date, "commit": report.commit}
