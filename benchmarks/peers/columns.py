"""What is told of each contender: the figures of the README's table and plot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router.bench.metrics import Spread
from router.bench.report import BenchReport, Standing
from router.bench.workloads import Workload


@dataclass(frozen=True)
class Column:
    """A figure that some contenders have, over the repeats."""

    title: str  # with its unit
    more_is_better: bool
    spread: Callable[[Standing], Spread | None]


def columns(report: BenchReport) -> list[Column]:
    """Decoding after the shortest text, prefill, vision, the first token after an image, memory and disk."""
    plain = [workload for workload in report.workloads if workload.is_plain]
    texts = [workload for workload in plain if not workload.images]
    seen = [workload for workload in plain if workload.images]
    found = [_column(report, text, "decode tok/s", "decode_tokens_per_second") for text in texts[:1]]
    for text in texts:
        title = f"prefill tok/s {text.prompt_tokens}"
        found.append(_column(report, text, title, "prefill_tokens_per_second"))
    for image in seen:
        title = f"vision patches/s {_images(image)}"
        found.append(_column(report, image, title, "vision_patches_per_second"))
    for image in seen:
        found.append(_column(report, image, f"TTFT s {_images(image)}", "ttft_ms"))
    found.append(Column("peak GB", False, lambda one: _gigabytes(one.peak_bytes)))
    found.append(Column("disk GB", False, lambda one: _gigabytes(one.disk_bytes)))
    return found


def able(report: BenchReport) -> list[Standing]:
    """The contenders that answered anything."""
    return [
        one for one in report.standings if any(row.target == one.name and row.measured for row in report.rows)
    ]


def _column(report: BenchReport, workload: Workload, title: str, metric: str) -> Column:
    found = {row.target: row.measured[metric] for row in report.of(workload) if metric in row.measured}
    if metric.endswith("_ms"):  # told in seconds
        found = {name: _scaled(spread, 1 / 1000) for name, spread in found.items()}
    return Column(title, not metric.endswith("_ms"), lambda one: found.get(one.name))


def _scaled(spread: Spread, times: float) -> Spread:
    return Spread(spread.median * times, spread.low * times, spread.high * times, spread.count)


def _gigabytes(count: int | None) -> Spread | None:
    return None if count is None else Spread.of([count / 1e9])


def _images(workload: Workload) -> str:
    size = workload.size
    shown = f"{size.width} px" if size and size.width == size.height else str(size)
    return shown if workload.images == 1 else f"{workload.images} x {shown}"
