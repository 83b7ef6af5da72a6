"""What one request took, and what a target must do to be measured.

The figures of a table are functions of these, see `router.bench.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router.types import Message


@dataclass(frozen=True)
class Sample:
    """One answered request; every time in seconds."""

    prompt_tokens: int  # image places included
    output_tokens: int
    first_token_seconds: float  # from the request to its first token: prompt, images and prefill
    decode_seconds: float  # from the first token to the last
    total_seconds: float
    gaps: tuple[float, ...] = ()  # between each token and the next
    cached_tokens: int = 0  # of the prompt, that were read in an earlier turn
    prefill_seconds: float | None = None  # vision included; None where it cannot be told apart
    vision_seconds: float = 0.0
    patches: int = 0  # that were encoded in ``vision_seconds``
    preprocess_seconds: float = 0.0  # from pixels to patches


@dataclass(frozen=True)
class TimedAnswer:
    """A text, and what it took."""

    text: str
    sample: Sample


@dataclass(frozen=True)
class Measurement:
    """All requests of one job: one, or several at the same time."""

    samples: tuple[Sample, ...]
    seconds: float  # from the first request to the last answer
    peak_bytes: int | None = None  # most memory that the process held meanwhile; None where that is not told


@dataclass(frozen=True)
class Facts:
    """What is known of a target once it is ready."""

    load_seconds: float | None = None  # in a fresh process: libraries imported, weights read
    numbers: str = ""  # what it computes with, in words
    device: str = "cpu"
    peak_bytes: int | None = None  # while loading; None where another process computes, or it is not told


class Engine(Protocol):
    """Something that answers: a backend, a server, or another program's library."""

    facts: Facts

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Answer greedily with exactly ``output_tokens`` tokens, whatever the model would rather end with."""
        ...
