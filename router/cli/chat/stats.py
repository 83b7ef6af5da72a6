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

    result = Table(box=box.SIMPLE_HEAD, show_footer=len(turns) > 1, pad_edge=False)
    for heading, total in zip(HEADINGS, totals(turns), strict=True):
        is_text = heading == ANSWERED_BY
        result.add_column(heading, total, justify="left" if is_text else "right", no_wrap=not is_text)
    for row in rows(turns):
        result.add_row(*row)
    return result


ANSWERED_BY = "answered by"  # the one column of text
HEADINGS = (
    "",
    ANSWERED_BY,
    "prompt\ntokens",
    "image\ntokens",
    "reused\ntokens",
    "TTFT",
    "output\ntokens",
    "tok/s",
)


def rows(turns: Sequence[TurnStats]) -> Iterator[tuple[str, ...]]:
    """The cells of each turn, in the order of HEADINGS."""
    for number, turn in enumerate(turns, 1):
        counts = str(turn.prompt_tokens), str(turn.image_tokens)
        answered_by, stats = f"{turn.decision.backend}: {turn.decision.reason}", turn.stats
        if stats is None:
            yield str(number), f"{answered_by} (stopped)", *counts, "", "", str(turn.output_tokens), ""
            continue
        yield (
            str(number),
            answered_by,
            *counts,
            str(stats.cached_tokens),
            f"{stats.first_token_seconds:.2f} s",
            str(turn.output_tokens),
            _speed(stats.output_tokens - 1, stats.decode_seconds),
        )


def totals(turns: Sequence[TurnStats]) -> tuple[str, ...]:
    """The cells of the last row; the speed is that of all tokens after each answer's first."""
    finished = [turn.stats for turn in turns if turn.stats is not None]
    return (
        "",
        "all",
        str(sum(turn.prompt_tokens for turn in turns)),
        str(sum(turn.image_tokens for turn in turns)),
        str(sum(stats.cached_tokens for stats in finished)),
        f"{sum(stats.first_token_seconds for stats in finished):.2f} s",
        str(sum(turn.output_tokens for turn in turns)),
        _speed(
            sum(stats.output_tokens - 1 for stats in finished),
            sum(stats.decode_seconds for stats in finished),
        ),
    )


def _speed(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f}" if tokens > 0 and seconds > 0 else ""
