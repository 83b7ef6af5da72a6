"""What a report says of the speed of each backend, for policies and estimates to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.bench.metrics import Spread
from router.bench.report import Report, Row
from router.bench.workloads import Workload
from router.speeds import Points, Speed


def speeds(report: Report) -> Mapping[str, Speed]:
    """The medians of each backend that answered a text, without streams and follow-ups."""
    found = {}
    for standing in report.standings:
        rows = [
            (workload, row)
            for workload in report.workloads
            for row in report.of(workload)
            if row.target == standing.name and row.measured and workload.is_plain
        ]
        texts = [row for workload, row in rows if not workload.pictures]
        if texts and standing.load_seconds is not None:
            found[standing.name] = Speed(
                load_seconds=standing.load_seconds,
                prefill=_points((_prompt(row), _rate(row, "prefill_tokens_per_second")) for row in texts),
                decode=_points((_context(row), _rate(row, "decode_tokens_per_second")) for row in texts),
                vision=_points(
                    (_patches(row, workload), _rate(row, "vision_patches_per_second"))
                    for workload, row in rows
                    if workload.pictures
                ),
            )
    return found


def _points(pairs: Iterable[tuple[int, float | None]]) -> Points:
    """Ascending, each size once; what has no rate is left out."""
    known = {at: rate for at, rate in pairs if rate is not None}
    return tuple(sorted(known.items()))


def _rate(row: Row, metric: str) -> float | None:
    found: Spread | None = row.measured.get(metric)
    return None if found is None else found.median


def _prompt(row: Row) -> int:
    return round(row.measured["prompt_tokens"].median)


def _context(row: Row) -> int:
    """Tokens in the cache at half of the answer, as `Speed.seconds` asks for it."""
    return _prompt(row) + round(row.measured["output_tokens"].median) // 2


def _patches(row: Row, workload: Workload) -> int:
    """Of one picture: each is encoded by itself."""
    return round(row.measured["patches"].median / workload.pictures) if "patches" in row.measured else 0
