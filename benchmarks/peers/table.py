"""The README's table: a row for each contender, the medians of what is asked first, and what it all means."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers.columns import able, columns
from router.bench.metrics import Spread
from router.bench.report import BenchReport, Standing
from router.bench.tables import NONE, number, table


def markdown(report: BenchReport) -> str:
    """The table, what cannot run and why, and what it was measured on."""
    told = columns(report)
    rows = [["", *(column.title for column in told), "weight error body / head / vision"]]
    rows += [
        [one.name, *(_median(column.spread(one)) for column in told), _error(one)] for one in able(report)
    ]
    return "\n\n".join([table(rows), *_problems(report), "\n".join(_words(report))]) + "\n"


def _median(spread: Spread | None) -> str:
    return NONE if spread is None else number(spread.median)


def _error(standing: Standing) -> str:
    return "unknown" if standing.fidelity is None else standing.fidelity.text(vision=True)


def _problems(report: BenchReport) -> Iterator[str]:
    """Why a contender has no row, or an empty place in it."""
    lines = [f"- {one.name} cannot run: {one.problem}" for one in report.standings if one.problem]
    failed: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        if row.problem:
            failed.setdefault((row.target, row.problem), []).append(row.workload)
    lines += [f"- {target}, {' and '.join(names)}: {why}" for (target, why), names in failed.items()]
    if lines:
        yield "\n".join(lines)


def _words(report: BenchReport) -> Iterator[str]:
    machine, setting = report.machine, report.setting
    flags = f" ({', '.join(machine.instructions)})" if machine.instructions else ""
    memory = f", {machine.memory_total / 2**30:.0f} GiB" if machine.memory_total else ""
    packages = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    code = f", commit {report.commit}" if report.commit else ""
    yield f"{machine.cpu}{flags}, {setting.threads} threads{memory}; {machine.system}."
    yield f"{packages}{code}; {report.date[:10]}."
    yield (
        f"`{setting.command}`: medians of {setting.described}, taken in turns, greedy, all of the same "
        f"weights ({setting.model}) and requests; each answer has {_tokens(report)} tokens."
    )
    yield (
        "Decode: after the shortest prompt. TTFT: from the image and a question of 32 words to the first "
        "token. Peak: resident memory of the process, mapped weights included. Disk: what was converted, and "
        "of hybrid's what is packed for this processor, too. Weight error: "
        "||W - Wq|| / ||W||, the mean over matrices, measured on what was converted; 0: the checkpoint's. "
        "Outputs: ||X (W - Wq)|| / ||X W|| of calibrated layers, for inputs X that they were not calibrated "
        "on; benchmarks/results/rounding.md has those of the others."
    )
    yield from report.notes


def _tokens(report: BenchReport) -> str:
    return " or ".join(str(count) for count in sorted({one.output_tokens for one in report.workloads}))
