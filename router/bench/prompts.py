"""Writes requests of a wanted length, no two of which begin alike: what is cached of one helps no other."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from backends.base import RequestError
from router.bench.workloads import QUESTION_WORDS, Job, Size, Workload
from router.prompt import PromptBuilder
from router.types import Message, Picture

# one token each, with a space before them, in most vocabularies and many in that of the embedded model
WORDS = (
    *("red", "green", "blue", "yellow", "white", "black", "two", "three", "four", "one", "big", "small"),
    *("square", "picture", "photo", "letter", "number", "column", "corner", "shapes", "stripes", "right"),
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
        known = WORDS if builder is None else tuple(word for word in WORDS if _is_token(word, builder))
        self._words = known or WORDS

    def job(self, workload: Workload) -> Job:
        """A new job. RequestError: ``prompt_tokens`` is less than an empty prompt has."""
        conversations = tuple(self._conversation(workload) for _ in range(workload.streams))
        question = self._question() if workload.follow_up else None
        return Job(workload, conversations, question)

    def _conversation(self, workload: Workload) -> tuple[Message, ...]:
        if workload.prompt_tokens is not None:
            return (Message.of("user", self._text(workload.prompt_tokens)),)
        assert workload.size is not None
        pictures = [self._picture(workload.size) for _ in range(workload.pictures)]
        return (Message.of("user", *pictures, self._question()),)

    def _text(self, tokens: int) -> str:
        """A text that makes a prompt of ``tokens``."""
        words = self._some(tokens)
        if self._builder is None:
            return " ".join(words)
        for _ in range(8):
            excess = len(self._builder.plan((Message.of("user", " ".join(words)),)).ids) - tokens
            if not excess:
                return " ".join(words)
            words = [*words, *self._some(-excess)] if excess < 0 else words[: max(0, len(words) - excess)]
        raise RequestError(
            f"no prompt of {tokens} tokens can be written: with the template's own it has more; "
            f"ask for at least {tokens + excess + 8}",
            param="prompt_tokens",
        )

    def _question(self) -> str:
        """A text as long in tokens as any other: its first word, which no space stands before, is fixed."""
        return " ".join(["Which", *self._some(QUESTION_WORDS - 1)])

    def _some(self, count: int) -> list[str]:
        return self._random.choices(self._words, k=count)

    def _picture(self, size: Size) -> Picture:
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
