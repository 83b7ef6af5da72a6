"""What is measured: kinds of requests, and the ones that are asked for by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from router.types import Message

QUESTION_WORDS = 32  # of the text beside a picture, and of a follow-up
_LONG = 8192  # tokens of context


@dataclass(frozen=True)
class Size:
    """Width and height of a picture in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Workload:
    """A kind of request."""

    output_tokens: int
    prompt_tokens: int | None = None  # of a text, the template's included; None: a question of 32 words
    pictures: int = 0
    size: Size | None = None  # of each picture
    follow_up: bool = False  # the second question of a conversation, of which the first is not measured
    streams: int = 1  # requests at the same time

    @property
    def is_plain(self) -> bool:
        """Whether it is a single request about something new."""
        return not self.follow_up and self.streams == 1

    @property
    def name(self) -> str:
        """How reports call it."""
        if self.pictures:
            kind = f"{self.pictures} picture{'s' * (self.pictures > 1)} {self.size}"
        else:
            kind = f"text {self.prompt_tokens}"
        if self.follow_up:
            return f"follow-up to {kind}"
        return kind if self.streams == 1 else f"{self.streams} streams of {kind}"

    @property
    def description(self) -> str:
        """What is asked, in words."""
        if self.pictures:
            pictures = f"{self.pictures} pictures" if self.pictures > 1 else "a picture"
            first = f"{pictures} of {self.size} pixels and a question of {QUESTION_WORDS} words"
        else:
            first = f"a prompt of {self.prompt_tokens} tokens"
        if self.follow_up:
            first = f"a second question of {QUESTION_WORDS} words, after {first} and its answer"
        at_once = f", {self.streams} requests at the same time" if self.streams > 1 else ""
        return f"{first}; {self.output_tokens} tokens of answer{at_once}"


@dataclass(frozen=True, eq=False)
class Job:
    """Requests of one workload, ready to be answered, and unlike any before them from their first word on."""

    workload: Workload
    conversations: tuple[tuple[Message, ...], ...]  # one a stream
    question: str | None = None  # asked after the first answer; that turn is then the one that is measured


def default_prompts(context: int) -> tuple[int, ...]:
    """Prompt lengths in tokens that say most of a model with this ``context``."""
    return (128, 512) if context < _LONG else (128, 1024)


def default_answer(context: int) -> int:
    """How many tokens an answer has; a model with a short context is a small one, which is timed sooner."""
    return 32 if context < _LONG else 64


def workloads(
    prompts: Sequence[int],
    output_tokens: int,
    sizes: Sequence[Size],
    pictures: Sequence[int],
    streams: Sequence[int],
) -> tuple[Workload, ...]:
    """Each prompt length; each number of pictures in each size; a follow-up to the first of both; streams."""
    texts = [Workload(output_tokens, prompt_tokens=count) for count in prompts]
    seen = [
        Workload(output_tokens, pictures=count, size=size) for size in sizes for count in pictures if count
    ]
    follow_ups = [replace(first, follow_up=True) for first in (*texts[:1], *seen[:1])]
    crowds = [replace(texts[0], streams=count) for count in streams if count > 1]
    return (*texts, *seen, *follow_ups, *crowds)
