"""How a long step goes on, on stderr; nothing moves where stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from router.models import Listener


@contextmanager
def listening(what: str = "", *, counted: bool = False) -> Iterator[Listener]:
    """Shows ``what`` goes on, then a bar with what is worked on and its bytes; says notices on lines.

    ``counted``: what progresses are steps and not bytes.
    """
    from router.models import Listener

    if not sys.stderr.isatty():
        yield Listener(notice=_say)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    done = MofNCompleteColumn() if counted else DownloadColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(what, total=None)

        def progress(name: str, done: int, total: int) -> None:
            bars.update(task, description=name[-60:], completed=done, total=total or None)

        yield Listener(progress, lambda text: console.print(f"hybrid: {text}", markup=False, highlight=False))


@contextmanager
def telling(what: str) -> Iterator[Callable[[str], None]]:
    """Shows a line that is replaced by each text told."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as status:
        yield status.update


def size(count: int) -> str:
    """A number of bytes, for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB" if value < 999.5 else f"{value:.0f} GB"


def _say(text: str) -> None:
    click.echo(f"hybrid: {text}", err=True)
