"""A report as Markdown: one table over all, one for each workload, and how the figures are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.bench.metrics import METRICS, Spread
from router.bench.report import BenchReport, Row, Standing
from router.bench.roofline import Shares
from router.bench.workloads import Workload

NONE = "-"


def markdown(report: BenchReport) -> str:
    """The whole report."""
    parts = [*_head(report), _standings(report), _glance(report)]
    for workload in report.workloads:
        if rows := report.of(workload):
            parts += _section(report, workload, rows)
    parts += _roofline(report)
    parts += _formulas(report)
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: Sequence[Sequence[str]], left: int = 1, *, sentences: bool = False) -> str:
    """Rows of cells, the first of them the header; ``left`` columns are set to the left, and a last one that
    holds ``sentences`` is not filled up."""
    count = len(rows[0])
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    if sentences:
        widths[-1] = max(3, len(rows[0][-1]))
    lefts = [index < left or (sentences and index == count - 1) for index in range(count)]
    rule = [
        "-" * (width - (not is_left)) + ":" * (not is_left)
        for width, is_left in zip(widths, lefts, strict=True)
    ]
    lines = []
    for cells in (rows[0], rule, *rows[1:]):
        padded = [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(cells, widths, lefts, strict=True)
        ]
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def number(value: float, scale_of: float | None = None) -> str:
    """Three digits that matter, or as many decimals as ``scale_of`` has with three."""
    scale = abs(value if scale_of is None else scale_of)
    if scale == int(scale):
        scale = 100  # a count
    decimals = next((places for least, places in ((100, 0), (10, 1), (1, 2)) if scale >= least), 3)
    return f"{value:.{decimals}f}" if value else "0"


def spread_text(spread: Spread | None) -> str:
    """The median, and in brackets the lowest and highest where they differ from it."""
    if spread is None:
        return NONE
    median = number(spread.median)
    low, high = number(spread.low, spread.median), number(spread.high, spread.median)
    return median if low == high else f"{median} ({low}..{high})"


def _head(report: BenchReport) -> Iterator[str]:
    machine, setting = report.machine, report.setting
    yield f"# hybrid bench: {setting.model}" + (f" @ {setting.revision[:12]}" if setting.revision else "")
    memory = f", {machine.memory_total / 2**30:.0f} GiB" if machine.memory_total else ""
    flags = f" ({', '.join(machine.instructions)})" if machine.instructions else ""
    yield (
        f"{machine.cpu}{flags}, {machine.cores_usable} of {machine.cores_present} cores, "
        f"{setting.threads} threads{memory}; {machine.system}"
    )
    code = f", commit {report.commit}" if report.commit else ""
    packages = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    yield f"{packages}{code}; {report.date}"
    yield f"`{setting.command}`"
    warmup = f" after {setting.warmup} to warm up" if setting.warmup else ""
    yield (
        f"{setting.described}{warmup}, taken in turns; greedy; "
        "median (lowest..highest). A speed counts only with the weight error it was reached at."
    )
    if report.notes:
        yield "\n".join(f"> {note}" for note in report.notes)


def _standings(report: BenchReport) -> str:
    lines = [["backend", "error body / head", "load s", "disk MB", "peak MB", "weights"]]
    for target in report.standings:
        if target.problem is not None:
            lines.append([target.name, *[NONE] * 4, f"cannot run: {target.problem}"])
            continue
        load = NONE if target.load_seconds is None else number(target.load_seconds)
        sizes = (_megabytes(target.disk_bytes), _megabytes(target.peak_bytes))
        lines.append([target.name, _fidelity(target, vision=False), load, *sizes, target.numbers or NONE])
    return table(lines, sentences=True)


def _glance(report: BenchReport) -> str:
    """The medians of what is asked first."""
    texts = [workload for workload in report.workloads if workload.is_plain and not workload.images]
    imaged = [workload for workload in report.workloads if workload.is_plain and workload.images]
    lengths = " / ".join(str(text.prompt_tokens) for text in texts)
    head = ["backend", "error body / head", "decode tok/s", f"prefill tok/s {lengths}"]
    head += [f"vision patches/s {image.size}" for image in imaged[:1]]
    lines = [head]
    for target in report.standings:
        if not any(row.target == target.name and row.measured for row in report.rows):
            continue
        cells = [target.name, _fidelity(target, vision=False)]
        cells += [_median(report, text, target, "decode_tokens_per_second") for text in texts[:1]]
        cells += [" / ".join(_median(report, text, target, "prefill_tokens_per_second") for text in texts)]
        cells += [_median(report, image, target, "vision_patches_per_second") for image in imaged[:1]]
        lines.append(cells)
    return table(lines) if len(lines) > 1 else ""


def _section(report: BenchReport, workload: Workload, rows: Sequence[Row]) -> Iterator[str]:
    yield f"## {workload.name}"
    yield f"{workload.description[0].upper()}{workload.description[1:]}."
    standings = {target.name: target for target in report.standings}
    errors = [
        _fidelity(standings[row.target], vision=bool(workload.images)) if not row.problem else NONE
        for row in rows
    ]
    label = "weight error, body / head" + (" / vision" if workload.images else "")
    lines = [["", *(row.target for row in rows)], [label, *errors]]
    for metric in METRICS:
        spreads = [row.measured.get(metric.name) for row in rows]
        if any(spread is not None and spread.high for spread in spreads):
            lines.append([metric.label, *map(spread_text, spreads)])
    yield table(lines)
    if problems := [f"- {row.target} did not run: {row.problem}" for row in rows if row.problem]:
        yield "\n".join(problems)


def _roofline(report: BenchReport) -> Iterator[str]:
    rates = report.rates
    if rates is None:
        return
    yield "## Roofline"
    products = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.matrices.items())
    yield (
        f"With {rates.threads} threads this machine reads {rates.bandwidth / 1e9:.1f} GB/s and multiplies "
        f"matrices at these GOP/s: {products}. Shares of what that allows:"
    )
    standings = {target.name: target for target in report.standings}
    lines = [["workload", "backend", "error body / head / vision", "MB/token", "decode", "prefill", "vision"]]
    for row in report.rows:
        if row.shares is not None and row.shares != Shares():
            error = _fidelity(standings[row.target], vision=True)
            token_megabytes = _megabytes(row.shares.token_bytes)
            lines.append([row.workload, row.target, error, token_megabytes, *map(_share, _all(row.shares))])
    if len(lines) > 1:
        yield table(lines, left=2)
    if cached := _cached(report):
        yield (
            f"What {', '.join(cached)} read for a token fits into this processor's cache: "
            "decoding is bound by other things than memory there."
        )


def _cached(report: BenchReport) -> list[str]:
    """The targets that never read more for a token than the largest cache holds."""
    most: dict[str, float] = {}
    for row in report.rows:
        if row.shares is not None and row.shares.token_bytes is not None:
            most[row.target] = max(most.get(row.target, 0.0), row.shares.token_bytes)
    return [target for target, token_bytes in most.items() if token_bytes < (report.machine.cache_bytes or 0)]


def _formulas(report: BenchReport) -> Iterator[str]:
    names = {name for row in report.rows for name, spread in row.measured.items() if spread.high}
    yield "## How the figures are computed"
    lines = [f"- {metric.label}: {metric.formula}" for metric in METRICS if metric.name in names]
    lines.append(
        "- weight error: ||W - Wq|| / ||W||, the mean over the matrices of each part, as the export's "
        "manifest has it; 0: the checkpoint's own weights. Outputs: ||X (W - Wq)|| / ||X W|| of calibrated "
        "layers, for inputs X that they were not calibrated on"
    )
    lines.append("- load: in a fresh process, from importing libraries to weights in memory; once")
    if report.rates is not None:
        lines.append(
            "- decode share: decode tok/s x bytes read per token / bandwidth; these bytes: every matrix of "
            "the layers and the head as it is stored, and the keys and values at half of the answer"
        )
        lines.append(
            "- prefill and vision share: operations / time / the highest matrix rate above; operations: 2 "
            "for each weight and token or patch, 4 x heads x head size x layers for each pair that attends"
        )
        lines += [f"- {note}" for note in report.rates.notes]
    yield "\n".join(lines)


def _median(report: BenchReport, workload: Workload, target: Standing, metric: str) -> str:
    for row in report.of(workload):
        if row.target == target.name and metric in row.measured:
            return number(row.measured[metric].median)
    return NONE


def _fidelity(target: Standing, *, vision: bool) -> str:
    return "unknown" if target.fidelity is None else target.fidelity.text(vision=vision)


def _megabytes(count: float | None) -> str:
    return NONE if count is None else number(count / 1e6)


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def _all(shares: Shares) -> tuple[float | None, ...]:
    return shares.decode, shares.prefill, shares.vision
