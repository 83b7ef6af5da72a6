"""The table as an image: a panel for each figure, a line for each contender, whiskers for the spread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.columns import Column, able, columns
from router.bench.report import BenchReport, Standing
from router.bench.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _OTHERS, _INK, _FAINT = "#3b6fb6", "#a9b4c0", "#222b36", "#7d8792"
_ACROSS = 4  # panels
_LINE, _ABOUT = 0.36, 0.75  # inches: of a contender, and around a panel
_WHISKERS = {"ecolor": _INK, "elinewidth": 1.0, "capsize": 2.0, "alpha": 0.7}


def draw(report: BenchReport, file: Path) -> None:
    """Draw the report into ``file``, in the format its name ends with. OSError: it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines, told = able(report), columns(report)
    down = math.ceil(len(told) / _ACROSS)
    figure = Figure(figsize=(13, down * (_ABOUT + _LINE * len(lines)) + 0.7), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    machine, setting = report.machine, report.setting
    figure.suptitle(f"{setting.model} on {machine.cpu}, {setting.threads} threads", color=_INK)
    for place, column in enumerate(told):
        axes = figure.add_subplot(down, _ACROSS, place + 1)
        _panel(axes, column, lines, named=place % _ACROSS == 0)
    busy = "; the machine was not idle" if report.notes else ""
    figure.supxlabel(
        f"medians of {setting.described}, in turns, whiskers: lowest and highest; below each name: "
        f"weight error of layers / head / vision{busy}; {report.date[:10]}",
        fontsize=8,
        color=_FAINT,
    )
    figure.savefig(file)


def _panel(axes: Axes, column: Column, lines: list[Standing], *, named: bool) -> None:
    """A bar for each contender that has the figure; the others' places stay empty."""
    bars = [(place, spread) for place, one in enumerate(lines) if (spread := column.spread(one)) is not None]
    most = max((spread.high for _, spread in bars), default=1.0) or 1.0
    for place, spread in bars:
        reach = [[spread.median - spread.low], [spread.high - spread.median]]
        colour = _OURS if lines[place].name.startswith("hybrid") else _OTHERS
        axes.barh(place, spread.median, 0.75, color=colour, xerr=reach, error_kw=_WHISKERS)
        axes.text(
            spread.high + most * 0.03, place, number(spread.median), va="center", fontsize=8, color=_INK
        )
    better = "" if column.more_is_better else "  (less is better)"
    axes.set_title(column.title + better, fontsize=9.5, loc="left", color=_INK)
    axes.set_yticks(range(len(lines)), [_label(one) if named else "" for one in lines], fontsize=8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlim(0, most * 1.25)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)


def _label(one: Standing) -> str:
    error = "unknown" if one.fidelity is None else one.fidelity.text(vision=True)
    return f"{one.name}\n{error}"
