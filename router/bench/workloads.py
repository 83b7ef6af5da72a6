"""What is measured: kinds of requests, and the requests themselves.

Each has the wanted length, and no two begin alike: what is cached of one helps no other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backends.base import RequestError
from router.prompt import PromptBuilder
from router.types import Message, Picture

QUESTION_WORDS = 32  # of the text beside an image, and of a follow-up
_LONG = 8192  # tokens of context


@dataclass(frozen=True)
class Size:
    """Width and height of an image in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Workload:
    """A kind of request."""

    output_tokens: int
    prompt_tokens: int | None = None  # of a text, the template's included; None: a question of 32 words
    images: int = 0
    size: Size | None = None  # of each image
    follow_up: bool = False  # the second question of a conversation, of which the first is not measured
    streams: int = 1  # requests at the same time

    @property
    def is_plain(self) -> bool:
        """Whether it is a single request about something new."""
        return not self.follow_up and self.streams == 1

    @property
    def name(self) -> str:
        """How reports call it."""
        if self.images:
            kind = f"{self.images} image{'s' * (self.images > 1)} {self.size}"
        else:
            kind = f"text {self.prompt_tokens}"
        if self.follow_up:
            return f"follow-up to {kind}"
        return kind if self.streams == 1 else f"{self.streams} streams of {kind}"

    @property
    def description(self) -> str:
        """What is asked, in words."""
        if self.images:
            images = f"{self.images} images" if self.images > 1 else "an image"
            first = f"{images} of {self.size} pixels and a question of {QUESTION_WORDS} words"
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
    images: Sequence[int],
    streams: Sequence[int],
) -> tuple[Workload, ...]:
    """Each prompt length; each number of images in each size; a follow-up to the first of both; streams."""
    texts = [Workload(output_tokens, prompt_tokens=count) for count in prompts]
    imaged = [Workload(output_tokens, images=count, size=size) for size in sizes for count in images if count]
    follow_ups = [replace(first, follow_up=True) for first in (*texts[:1], *imaged[:1])]
    crowds = [replace(texts[0], streams=count) for count in streams if count > 1]
    return (*texts, *imaged, *follow_ups, *crowds)


# one token each, with a space before them, in most vocabularies and many in that of the embedded model
WORDS = (
    *("red", "green", "blue", "yellow", "white", "black", "two", "three", "four", "one", "big", "small"),
    *("square", "image", "photo", "letter", "number", "column", "corner", "shapes", "stripes", "right"),
    *("left", "back", "different", "which", "about", "some", "sun", "reading", "school", "bread", "books"),
    *("computer", "model", "corn", "all", "was", "going", "look", "for", "house", "water", "light", "paper"),
    *("music", "river", "stone", "garden", "winter", "morning", "window", "table", "road", "bridge"),
    *("people", "story", "time", "day", "night", "hand", "world", "city", "line", "point", "place", "name"),
    *("long", "great", "good", "new", "old", "first", "last", "next", "part", "side", "end", "open", "high"),
)


class Writer:
    """Writes the jobs of one run."""

    def __init__(self, builder: PromptBuilder | None, seed: int | None = None) -> None:
        """``builder``: of the model that will read; None where it is not known, and a word counts as a token.

        ``seed``: None writes what was never written before, also by another process to the same server.
        """
        self._builder = builder
        self._random = random.Random(seed)
        single = WORDS if builder is None else tuple(word for word in WORDS if _is_token(word, builder))
        self._words = single or WORDS

    def job(self, workload: Workload) -> Job:
        """A new job. RequestError: ``prompt_tokens`` is less than an empty prompt has."""
        conversations = tuple(self._conversation(workload) for _ in range(workload.streams))
        question = self._question() if workload.follow_up else None
        return Job(workload, conversations, question)

    def _conversation(self, workload: Workload) -> tuple[Message, ...]:
        if workload.prompt_tokens is not None:
            return (Message.of("user", self._text(workload.prompt_tokens)),)
        assert workload.size is not None
        images = [self._image(workload.size) for _ in range(workload.images)]
        return (Message.of("user", *images, self._question()),)

    def _text(self, tokens: int) -> str:
        """A text that makes a prompt of ``tokens``."""
        words = self._choices(tokens)
        if self._builder is None:
            return " ".join(words)
        for _ in range(8):
            excess = len(self._builder.plan((Message.of("user", " ".join(words)),)).ids) - tokens
            if not excess:
                return " ".join(words)
            words = [*words, *self._choices(-excess)] if excess < 0 else words[: max(0, len(words) - excess)]
        raise RequestError(
            f"no prompt of {tokens} tokens can be written: with the template's own it has more; "
            f"ask for at least {tokens + excess + 8}",
            param="prompt_tokens",
        )

    def _question(self) -> str:
        """A text as long in tokens as any other: its first word, which no space stands before, is fixed."""
        return " ".join(["Which", *self._choices(QUESTION_WORDS - 1)])

    def _choices(self, count: int) -> list[str]:
        return self._random.choices(self._words, k=count)

    def _image(self, size: Size) -> Picture:
        """Soft colours that differ everywhere from those of any other: resizing cannot make two the same."""
        coarse = np.frombuffer(self._random.randbytes(8 * 8 * 3), np.uint8).reshape(8, 8, 3)
        rows, columns = (np.arange(side) * 8 // side for side in (size.height, size.width))
        return Picture(np.ascontiguousarray(coarse[rows][:, columns]))


def _is_token(word: str, builder: PromptBuilder) -> bool:
    return len(builder.tokenizer.encode(f" {word}", add_special_tokens=False).ids) == 1


def check_room(workloads: Sequence[Workload], context: int) -> None:
    """RequestError ``context_length_exceeded``: a text and its answer are longer than the model's context."""
    for workload in workloads:
        total = (workload.prompt_tokens or 0) + workload.output_tokens
        if total > context:
            raise RequestError(
                f"'{workload.name}' and {workload.output_tokens} tokens of answer are {total} tokens, the "
                f"model's context is {context}; ask for less with -p or -n",
                code="context_length_exceeded",
                param="prompt_tokens",
            )
