"""What a command prints: answers and decisions as text or JSON, progress, numbers for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from router.cli.exit_codes import OutputError

if TYPE_CHECKING:
    from router.models import Listener
    from router.types import Completion, Decision, Stats


def write(text: str) -> None:
    """Text to stdout at once; OutputError when the disk or the device does not take it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the answer cannot be written to stdout: {error.strerror}") from None


def write_stderr(line: str) -> None:
    """A line beside the answer: what concerns people and no program."""
    click.echo(line, err=True)


def decision_line(decision: Decision) -> str:
    """Which backend answers, why, and which would be next."""
    fallbacks = f" (then {', '.join(decision.fallbacks)})" if decision.fallbacks else ""
    return f"{decision.backend}: {decision.reason}{fallbacks}"


def usage_line(stats: Stats) -> str:
    """What an answer took, in one line."""
    prompt = f"{stats.prompt_tokens} prompt tokens"
    if stats.resized:
        sizes = ", ".join(f"{width}x{height}" for width, height in stats.resized)
        prompt += f", {stats.image_tokens} of them for {counted(len(stats.resized), 'image')} read at {sizes}"
    if stats.cached_tokens:
        prompt += f", {stats.cached_tokens} of them read before"
    first_token = f"first token after {stats.first_token_seconds:.2f} s"
    if stats.image_tokens:
        first_token += f" (vision {stats.vision_seconds:.2f} s)"
    speed = f"{stats.tokens_per_second:.1f} tok/s" if stats.tokens_per_second else "one token"
    return (
        f"{stats.backend}: {prompt}; {counted(stats.output_tokens, 'output token')}; {first_token}; {speed}"
    )


def as_json(completion: Completion) -> str:
    """A whole answer as one JSON object."""
    stats, decision = completion.stats, completion.decision
    return json.dumps(
        {
            "text": completion.text,
            "finish": completion.finish,
            "backend": stats.backend,
            "reason": decision.reason,
            "usage": {
                "prompt_tokens": stats.prompt_tokens,
                "image_tokens": stats.image_tokens,
                "cached_tokens": stats.cached_tokens,
                "output_tokens": stats.output_tokens,
            },
            "timings": {
                "vision_seconds": stats.vision_seconds,
                "prefill_seconds": stats.prefill_seconds,
                "decode_seconds": stats.decode_seconds,
                "tokens_per_second": stats.tokens_per_second,
            },
            "resized": stats.resized,
            "tokens": completion.tokens,
            "logprobs": [asdict(score) for score in completion.logprobs] or None,
        },
        ensure_ascii=False,
    )


@contextmanager
def progress_bar(text: str = "", *, steps: bool = False) -> Iterator[Listener]:
    """Shows the text, then a bar with what is worked on and its bytes; prints notices on lines of their own.

    ``steps``: what progresses are steps and not bytes.
    """
    from router.models import Listener

    if not sys.stderr.isatty():
        yield Listener(notice=lambda text: write_stderr(f"hybrid: {text}"))
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
    amount = MofNCompleteColumn() if steps else DownloadColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(text, total=None)

        def progress(name: str, done: int, total: int) -> None:
            bars.update(task, description=name[-60:], completed=done, total=total or None)

        yield Listener(progress, lambda text: console.print(f"hybrid: {text}", markup=False, highlight=False))


@contextmanager
def progress_line(text: str) -> Iterator[Callable[[str], None]]:
    """Shows a line as long as this takes; what it yields replaces its text."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status.update


def size(count: int) -> str:
    """A number of bytes, for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB" if value < 999.5 else f"{value:.0f} GB"


def counted(number: int, noun: str) -> str:
    """A number of things, for people."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
