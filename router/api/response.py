"""Chunks of an answer -> OpenAI's objects, streamed or whole."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from backends.base import Prompt
from router.api.figures import timings
from router.api.objects import Answered, Routing
from router.types import Chunk, Completion, Decision, Stats

Piece: TypeAlias = "Callable[[int], bytes]"  # the bytes of a token; none for a control token


@dataclass(frozen=True)
class Envelope:
    """What is the same in every object of one answer."""

    model: str
    prompt: Prompt
    piece: Piece
    include_usage: bool = False
    routing: Decision | None = None  # where the client wants to be told
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self, kind: str) -> dict[str, Any]:
        """The fields with which an object of this answer begins."""
        return {"id": f"{kind}-{self.id}", "created": self.created, "model": self.model}

    def streamed(self, kind: str) -> dict[str, Any]:
        """The same for a chunk: usage is null in all of them but the last, where it is asked for."""
        return {**self.fields(kind), **({"usage": None} if self.include_usage else {})}

    def ending(self, stats: Stats) -> dict[str, Any]:
        """What is told when the answer is whole."""
        told: dict[str, Any] = {"timings": timings(stats, self.prompt)}
        if (decision := self.routing) is not None:
            told["hybrid"] = Routing(
                backend=stats.backend, reason=decision.reason, fallbacks=list(decision.fallbacks)
            )
        return told


class AnswerForm(Protocol):
    """How an answer is written: as a chat completion, or as a text completion."""

    def opening(self) -> Iterator[Answered]:
        """What is sent before the first chunk."""
        ...

    def chunk(self, chunk: Chunk) -> Iterator[Answered]:
        """What is sent for a chunk; nothing, if it has nothing to show."""
        ...

    def whole(self, completion: Completion) -> Answered:
        """The whole answer as one object."""
        ...


def shown(text: bytes) -> str:
    """The text of a token, which may be a part of a character."""
    return text.decode("utf-8", "replace")
