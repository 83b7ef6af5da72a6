"""A report as an image: a panel for each figure, a bar for each backend, whiskers for the spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import BackendError
from router.bench.metrics import Spread
from router.bench.report import BenchReport, Standing
from router.bench.tables import number
from router.bench.workloads import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#3b6fb6", "#e08a1e", "#2f9e6e", "#b0476b", "#7a5fb0", "#5b6b7b", "#a5832f", "#3aa0b5")
_INK, _FAINT, _LINE = "#222b36", "#7d8792", "#e4e8ec"
_WHISKERS = {"ecolor": _INK, "elinewidth": 1.0, "capsize": 2.5, "alpha": 0.7}

# inches
_WIDTH, _TOP, _BOTTOM = 12.0, 1.1, 0.45
_COLUMNS = ((1.65, 4.1), (7.65, 4.1))  # where the axes of a column begin, and how wide they are
_BAR, _BETWEEN, _TITLE, _BELOW = 0.2, 0.12, 0.42, 0.38


@dataclass(frozen=True)
class Panel:
    """Groups of bars that share a scale: the name of each group, and who has which figure in it."""

    title: str
    more_is_better: bool
    groups: tuple[tuple[str, tuple[tuple[str, Spread], ...]], ...]

    @property
    def height(self) -> float:
        """Of its bars, in inches."""
        return sum(len(bars) * _BAR + _BETWEEN for _, bars in self.groups)


def check() -> None:
    """BackendError ``backend_unavailable``: matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BackendError(
            "--plot needs matplotlib: pip install 'hybrid-router[bench]'", code="backend_unavailable"
        ) from None


def panels(report: BenchReport) -> list[Panel]:
    """What is drawn: only figures that somebody has."""
    candidates = [
        _by_workload(report, "decode_tokens_per_second", "Decode: tokens per second", True, _is_cold),
        _by_workload(
            report, "prefill_tokens_per_second", "Prefill: prompt tokens per second", True, _is_cold
        ),
        _by_workload(report, "ttft_ms", "Time to first token: milliseconds", False, _is_single),
        _by_workload(report, "vision_patches_per_second", "Vision: patches per second", True, _is_cold),
        _by_workload(
            report, "all_streams_tokens_per_second", "All streams: tokens per second", True, lambda _: True
        ),
        _memory(report),
    ]
    return [panel for panel in candidates if panel.groups]


def plot(report: BenchReport, file: Path) -> None:
    """Draw the report into ``file``, in the format that its name ends with. OSError: it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    placed: list[tuple[Panel, int, float]] = []  # its column, and how far below the head it begins
    filled = [0.0] * len(_COLUMNS)
    for panel in panels(report):
        column = filled.index(min(filled))
        placed.append((panel, column, filled[column] + _TITLE))
        filled[column] += _TITLE + panel.height + _BELOW
    height = _TOP + max(filled) + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    colours = _colours(report)
    for panel, column, below in placed:
        left, width = _COLUMNS[column]
        bottom = height - _TOP - below - panel.height
        place = (left / _WIDTH, bottom / height, width / _WIDTH, panel.height / height)
        _draw(figure.add_axes(place), panel, colours)
    _captions(report, figure, height)
    figure.savefig(file)


def _draw(axes: Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    most = max(spread.high for _, bars in panel.groups for _, spread in bars)
    at, ticks = 0.0, []
    for _, bars in panel.groups:
        ticks.append(at + len(bars) * _BAR / 2)
        for target, spread in bars:
            whiskers = [[spread.median - spread.low], [spread.high - spread.median]]
            middle = at + _BAR / 2
            axes.barh(
                middle, spread.median, _BAR * 0.82, color=colours[target], xerr=whiskers, error_kw=_WHISKERS
            )
            axes.text(
                spread.high + most * 0.02,
                middle,
                number(spread.median),
                va="center",
                fontsize=8.5,
                color=_INK,
            )
            at += _BAR
        at += _BETWEEN
    axes.set_yticks(ticks, [name for name, _ in panel.groups], fontsize=9, color=_INK)
    axes.set_ylim(panel.height - _BETWEEN / 2, -_BETWEEN / 2)
    axes.set_xlim(0, most * 1.14 or 1)
    axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold", color=_INK, pad=6)
    better = "more is better" if panel.more_is_better else "less is better"
    axes.set_title(better, loc="right", fontsize=8.5, color=_FAINT, pad=6)
    axes.tick_params(axis="x", labelsize=8, colors=_FAINT, length=0)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _captions(report: BenchReport, figure: Figure, height: float) -> None:
    """Title, legend and what it was measured on."""
    from matplotlib.patches import Patch

    machine, setting = report.machine, report.setting
    figure.text(0.02, 1 - 0.36 / height, setting.model, fontsize=17, fontweight="bold", color=_INK)
    where = f"{machine.cpu}, {setting.threads} threads, {machine.system}; {report.date[:10]}"
    figure.text(0.02, 1 - 0.62 / height, where, fontsize=9.5, color=_FAINT)
    colours = _colours(report)
    drawn = [target for target in report.standings if target.name in colours]
    figure.legend(
        [Patch(color=colours[target.name]) for target in drawn],
        [_legend(target) for target in drawn],
        loc="upper left",
        bbox_to_anchor=(0.012, 1 - 0.68 / height),
        ncols=min(4, len(drawn)),
        frameon=False,
        fontsize=9.5,
        labelcolor=_INK,
        handlelength=1.0,
        handleheight=1.0,
    )
    repeats = f"median of {setting.described}, interleaved, whiskers: lowest and highest"
    weights = "weight error: ||W - Wq|| / ||W|| of layers / head"
    busy = "; the machine was not idle" if report.notes else ""
    figure.text(0.02, 0.16 / height, f"{repeats}; {weights}{busy}", fontsize=8, color=_FAINT)
    figure.text(0.98, 0.16 / height, "hybrid bench", fontsize=8, color=_FAINT, ha="right")


def _legend(target: Standing) -> str:
    error = "unknown" if target.fidelity is None else target.fidelity.text(vision=False)
    numbers = f" {target.numbers}" if target.numbers else ""
    return f"{target.name}{numbers}  (weight error {error})"


def _by_workload(
    report: BenchReport, metric: str, title: str, more_is_better: bool, wanted: Callable[[Workload], bool]
) -> Panel:
    groups = []
    for workload in filter(wanted, report.workloads):
        bars = tuple(
            (row.target, row.measured[metric]) for row in report.of(workload) if metric in row.measured
        )
        if bars:
            groups.append((workload.name.replace("-up to ", "-up to\n"), bars))
    return Panel(title, more_is_better, tuple(groups))


def _memory(report: BenchReport) -> Panel:
    peaks = tuple(
        (target.name, Spread.of([target.peak_bytes / 1e6]))
        for target in report.standings
        if target.peak_bytes is not None
    )
    return Panel("Peak memory: megabytes", False, (("loading and\nanswering", peaks),) if peaks else ())


def _is_cold(workload: Workload) -> bool:
    return workload.is_plain


def _is_single(workload: Workload) -> bool:
    return workload.streams == 1


def _colours(report: BenchReport) -> dict[str, str]:
    measured = [target.name for target in report.standings if target.problem is None]
    return {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(measured)}
