"""The README's table: a row for each contender, the medians of what is asked first, and what it all means."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from router.bench.report import Report, Standing
from router.bench.tables import NONE, number, table
from router.bench.workloads import Workload

_Cell = Callable[[Report, Standing], str]


def markdown(report: Report) -> str:
    """The table, what cannot run and why, and what it was measured on."""
    columns = list(_columns(report))
    able = [standing for standing in report.standings if _ran(report, standing)]
    rows = [["", *(title for title, _ in columns)]]
    rows += [[standing.name, *(cell(report, standing) for _, cell in columns)] for standing in able]
    parts = [table(rows), *_problems(report), "\n".join(_words(report))]
    return "\n\n".join(parts) + "\n"


def _columns(report: Report) -> Iterator[tuple[str, _Cell]]:
    plain = [workload for workload in report.workloads if workload.is_plain]
    texts = [workload for workload in plain if not workload.pictures]
    seen = [workload for workload in plain if workload.pictures]
    for text in texts[:1]:
        yield "decode tok/s", _median(text, "decode_tokens_per_second")
    for text in texts:
        yield f"prefill tok/s {text.prompt_tokens}", _median(text, "prefill_tokens_per_second")
    for picture in seen:
        yield f"vision patches/s {_pictures(picture)}", _median(picture, "vision_patches_per_second")
    for picture in seen:
        yield f"TTFT s {_pictures(picture)}", _median(picture, "ttft_ms", 1000)
    yield "peak GB", lambda _, standing: _gigabytes(standing.peak_bytes)
    yield "disk GB", lambda _, standing: _gigabytes(standing.disk_bytes)
    yield "weight error body / head / vision", lambda _, standing: _error(standing)


def _median(workload: Workload, metric: str, scale: float = 1) -> _Cell:
    def cell(report: Report, standing: Standing) -> str:
        found = [row for row in report.of(workload) if row.target == standing.name]
        if not found or metric not in found[0].measured:
            return NONE
        return number(found[0].measured[metric].median / scale)

    return cell


def _pictures(workload: Workload) -> str:
    size = workload.size
    shown = f"{size.width} px" if size and size.width == size.height else str(size)
    return shown if workload.pictures == 1 else f"{workload.pictures} x {shown}"


def _gigabytes(count: int | None) -> str:
    return NONE if count is None else f"{count / 1e9:.2f}"


def _error(standing: Standing) -> str:
    return "unknown" if standing.fidelity is None else standing.fidelity.text(vision=True)


def _ran(report: Report, standing: Standing) -> bool:
    return any(row.target == standing.name and row.measured for row in report.rows)


def _problems(report: Report) -> Iterator[str]:
    """Why a contender has no row, or an empty place in it."""
    lines = [f"- {one.name} cannot run: {one.problem}" for one in report.standings if one.problem]
    failed: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        if row.problem:
            failed.setdefault((row.target, row.problem), []).append(row.workload)
    lines += [f"- {target}, {' and '.join(names)}: {why}" for (target, why), names in failed.items()]
    if lines:
        yield "\n".join(lines)


def _words(report: Report) -> Iterator[str]:
    machine, setting = report.machine, report.setting
    flags = f" ({', '.join(machine.instructions)})" if machine.instructions else ""
    memory = f", {machine.memory_bytes / 2**30:.0f} GiB" if machine.memory_bytes else ""
    packages = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    code = f", commit {report.commit}" if report.commit else ""
    yield f"{machine.cpu}{flags}, {setting.threads} threads{memory}; {machine.system}."
    yield f"{packages}{code}; {report.date[:10]}."
    yield (
        f"`{setting.command}`: medians of {setting.repeats} repeats taken in turns, greedy, all of the same "
        f"weights ({setting.model}) and requests; each answer has {_tokens(report)} tokens."
    )
    yield (
        "Decode: after the shortest prompt. TTFT: from the picture and a question of 32 words to the first "
        "token. Peak: resident memory of the process, mapped weights included. Weight error: "
        "||W - Wq|| / ||W||, the mean over matrices, measured on what each converted; 0: the checkpoint's own."
    )
    yield from report.notes


def _tokens(report: Report) -> str:
    return " or ".join(str(count) for count in sorted({one.output_tokens for one in report.workloads}))
