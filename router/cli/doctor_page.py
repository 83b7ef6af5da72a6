"""How the findings of ``hybrid doctor`` look on a terminal."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import click

from router.cli.terminal import size
from router.estimates import TOKENS

if TYPE_CHECKING:
    from router.doctor import (
        DoctorReport,
        FirstToken,
        Fit,
        Headroom,
        InstructionSet,
        Machine,
        ModelFits,
        Package,
        Trial,
    )

Kind: TypeAlias = Literal["good", "absent", "look", "bad"]

NARROWEST, WIDEST = 40, 100  # columns; longer lines are hard to read
_MARKS: dict[Kind, str] = {"good": "✓", "absent": "-", "look": "!", "bad": "✗"}
_PLAIN_MARKS: dict[Kind, str] = {"good": "+", "absent": "-", "look": "!", "bad": "x"}
_COLOURS: dict[Kind, str] = {"good": "green", "look": "yellow", "bad": "red"}


class PageLine(NamedTuple):
    """One finding: a mark, what it is about, and what was found."""

    kind: Kind
    name: str
    text: str = ""
    advice: str | None = None


def page(report: DoctorReport) -> str:
    """The whole report, as wide as the terminal."""
    machine, processor = report.machine, report.machine.processor
    sections = {
        f"{processor.name or 'Processor'} ({processor.architecture})": _processor(machine),
        f"{machine.system}, Python {platform.python_version()}": _memory_and_disk(machine, report.headroom),
        "Libraries": _libraries(report.packages),
        f"Models, and the memory that each takes with {TOKENS:,} tokens and an image": map(
            _model, report.models
        ),
        f"Backends, tried with {report.model.name}": [*map(_trial, report.backends), *_disagreement(report)],
    }
    style = _Style()
    texts = [style.section(title, list(lines)) for title, lines in sections.items()]
    if report.can_answer:
        texts.append(f"Can answer here: {', '.join(report.can_answer)}\n")
    return "\n".join(texts)


def _processor(machine: Machine) -> Iterator[PageLine]:
    yield from map(_instruction_set, machine.instruction_sets)
    yield PageLine("good", "cores", f"{machine.cores_usable} of {machine.cores_present} usable")


def _instruction_set(instructions: InstructionSet) -> PageLine:
    if instructions.present is None:
        return PageLine("look", instructions.name, "the system does not tell")
    if instructions.present:
        return PageLine("good", instructions.name)
    return PageLine("absent", instructions.name, f"no: {instructions.without}")


def _memory_and_disk(machine: Machine, headroom: Headroom) -> Iterator[PageLine]:
    free, total, disk = headroom.memory_available, machine.memory_total, headroom.disk
    if free is None or total is None:
        yield PageLine("look", "memory", "the system does not tell")
    else:
        yield PageLine("good", "memory", f"{size(free)} free of {size(total)}")
    yield PageLine("good", "disk", f"{size(disk.free)} free in {disk.home}")
    yield from (PageLine("look", "", advice) for advice in headroom.advice)


def _libraries(packages: Iterable[Package]) -> Iterator[PageLine]:
    for package in packages:
        if package.version is None:
            yield PageLine("absent", package.name, "not installed")
        elif package.problem is not None:
            yield PageLine("bad", package.name, f"{package.version}, {package.problem}", package.advice)
        else:
            yield PageLine("good", package.name, package.version)


def _model(model: ModelFits) -> PageLine:
    entry = model.entry
    size_and_kind = f"{size(entry.size)} {entry.kind}"
    if model.problem is not None:
        return PageLine("bad", entry.name, f"{size_and_kind}: {model.problem}", model.advice)
    if not model.fits:
        return PageLine("absent", entry.name, f"{size_and_kind}, which no backend here reads")
    verdicts = {fit.verdict for fit in model.fits}
    kind: Kind = "good" if verdicts == {"fits"} else "bad" if verdicts == {"does not fit"} else "look"
    return PageLine(kind, entry.name, f"{size_and_kind}; takes {', '.join(map(_fit, model.fits))}")


def _fit(fit: Fit) -> str:
    return f"{size(fit.need.total)} with {fit.backend} ({fit.verdict or 'free memory unknown'})"


def _trial(trial: Trial) -> PageLine:
    kinds: dict[str, Kind] = {"answers": "good", "not run": "good", "unavailable": "absent"}
    kind = kinds.get(trial.state, "look" if trial.can_answer or trial.state == "too large" else "bad")
    problem = [] if trial.problem is None else [trial.problem]
    usable = ["can be used"] if trial.state == "not run" else []
    return PageLine(kind, trial.backend, "; ".join([*problem, *usable, *_figures(trial)]), trial.advice)


def _figures(trial: Trial) -> Iterator[str]:
    if trial.load_seconds is not None:
        yield f"loads in {_time(trial.load_seconds)}"
    if trial.text is not None:
        yield f"first token after {_token(trial.text)}"
    if trial.image is not None:
        yield f"with an image after {_token(trial.image)}"
    elif trial.capability is not None and trial.text is not None and not trial.capability.traits.sees_images:
        yield "reads text only"
    if trial.state in ("answers", "failed") and trial.peak_bytes is not None:
        yield f"memory at most {size(trial.peak_bytes)}"


def _token(token: FirstToken) -> str:
    return f"{_time(token.seconds)} ({token.text.strip()!r})"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _disagreement(report: DoctorReport) -> Iterator[PageLine]:
    if report.disagreement is not None:
        yield PageLine("look", "", report.disagreement)


class _Style:
    """How wide, with which marks, and in colour or not, as stdout can show it."""

    def __init__(self) -> None:
        on_terminal = sys.stdout.isatty()
        columns = shutil.get_terminal_size().columns if on_terminal else 80
        self.width = max(NARROWEST, min(columns, WIDEST))
        self.colour = on_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.marks, self.arrow = _MARKS, "→"
        try:
            "".join([*_MARKS.values(), self.arrow]).encode(sys.stdout.encoding)
        except UnicodeEncodeError:
            self.marks, self.arrow = _PLAIN_MARKS, "->"

    def section(self, title: str, lines: list[PageLine]) -> str:
        """A title, and its lines with what they are about in one column."""
        column = max((len(line.name) for line in lines if len(line.name) <= 18), default=0)
        return "\n".join([self._bold(title), *(self._line(line, column) for line in lines)]) + "\n"

    def _line(self, line: PageLine, column: int) -> str:
        name, indent = line.name, " " * (column + 6)
        texts = [f"    {name.ljust(column)}  {line.text}".rstrip()]
        if len(name) > column:
            texts = [f"    {name}", f"{indent}{line.text}"]
        if line.advice:
            texts.append(f"{indent}{self.arrow} {line.advice}")
        paragraph = "\n".join(
            textwrap.fill(text, self.width, subsequent_indent=indent, break_on_hyphens=False)
            for text in texts
        )
        mark = self.marks[line.kind]
        if self.colour and line.kind in _COLOURS:
            mark = click.style(mark, fg=_COLOURS[line.kind])
        return f"  {mark}{paragraph[3:]}"

    def _bold(self, title: str) -> str:
        return click.style(title, bold=True) if self.colour else title
