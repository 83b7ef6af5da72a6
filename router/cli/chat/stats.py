"""What each answer of a chat took, and the table of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.types import Decision, Stats

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TurnStats:
    """One answer; of one that was stopped only the counts are known."""

    decision: Decision
    prompt_tokens: int
    image_tokens: int
    output_tokens: int
    stats: Stats | None = None  # None: stopped


def table(turns: Sequence[TurnStats]) -> Table:
    """A row for each turn, and one for all."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, show_footer=len(turns) > 1, pad_edge=False)
    for place, (head, total) in enumerate(zip(HEADS, totals(turns), strict=True)):
        words = place == WHO
        made.add_column(head, total, justify="left" if words else "right", no_wrap=not words)
    for row in rows(turns):
        made.add_row(*row)
    return made


HEADS = (
    "",
    "answered by",
    "prompt\ntokens",
    "image\ntokens",
    "reused\ntokens",
    "TTFT",
    "output\ntokens",
    "tok/s",
)
WHO = 1  # the column that is words


def rows(turns: Sequence[TurnStats]) -> Iterator[tuple[str, ...]]:
    """The cells of each turn, in the order of HEADS."""
    for number, turn in enumerate(turns, 1):
        counts = str(turn.prompt_tokens), str(turn.image_tokens)
        who, stats = f"{turn.decision.backend}: {turn.decision.reason}", turn.stats
        if stats is None:
            yield str(number), f"{who} (stopped)", *counts, "", "", str(turn.output_tokens), ""
            continue
        yield (
            str(number),
            who,
            *counts,
            str(stats.cached_tokens),
            f"{stats.first_token_seconds:.2f} s",
            str(turn.output_tokens),
            _speed(stats.output_tokens - 1, stats.decode_seconds),
        )


def totals(turns: Sequence[TurnStats]) -> tuple[str, ...]:
    """The cells of the last row; the speed is that of all tokens after each answer's first."""
    whole = [turn.stats for turn in turns if turn.stats is not None]
    return (
        "",
        "all",
        str(sum(turn.prompt_tokens for turn in turns)),
        str(sum(turn.image_tokens for turn in turns)),
        str(sum(stats.cached_tokens for stats in whole)),
        f"{sum(stats.first_token_seconds for stats in whole):.2f} s",
        str(sum(turn.output_tokens for turn in turns)),
        _speed(sum(stats.output_tokens - 1 for stats in whole), sum(stats.decode_seconds for stats in whole)),
    )


def _speed(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f}" if tokens > 0 and seconds > 0 else ""
