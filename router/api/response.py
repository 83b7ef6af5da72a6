"""Chunks of an answer -> OpenAI's objects, streamed or whole."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from backends.base import Prompt
from router.api.objects import CompletionDetails, PromptDetails, ResponseObject, Routing, Timings, Usage
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


class ResponseWriter(Protocol):
    """How an answer is written: as a chat completion, or as a text completion."""

    def opening(self) -> Iterator[ResponseObject]:
        """What is sent before the first chunk."""
        ...

    def chunk(self, chunk: Chunk) -> Iterator[ResponseObject]:
        """What is sent for a chunk; nothing, if it has nothing to show."""
        ...

    def whole(self, completion: Completion) -> ResponseObject:
        """The whole answer as one object."""
        ...


def shown(text: bytes) -> str:
    """The text of a token, which may be a part of a character."""
    return text.decode("utf-8", "replace")


def usage(stats: Stats) -> Usage:
    """Tokens of the prompt and of the answer."""
    return Usage(
        prompt_tokens=stats.prompt_tokens,
        completion_tokens=stats.output_tokens,
        total_tokens=stats.prompt_tokens + stats.output_tokens,
        prompt_tokens_details=PromptDetails(
            cached_tokens=stats.cached_tokens,
            image_tokens=stats.image_tokens,
        ),
        completion_tokens_details=CompletionDetails(),
    )


def timings(stats: Stats, prompt: Prompt) -> Timings:
    """Milliseconds and tokens a second, and at what size the images of ``prompt`` were read."""
    read = stats.prompt_tokens - stats.cached_tokens
    return Timings(
        cache_n=stats.cached_tokens,
        prompt_n=read,
        prompt_ms=_ms(stats.prefill_seconds),
        prompt_per_second=round(read / stats.prefill_seconds, 2) if stats.prefill_seconds > 0 else 0.0,
        predicted_n=stats.output_tokens,
        predicted_ms=_ms(stats.decode_seconds),
        predicted_per_second=round(stats.tokens_per_second, 2),
        vision_ms=_ms(stats.vision_seconds),
        image_tokens=stats.image_tokens,
        image_grid_thw=[] if prompt.grid is None else [(t, h, w) for t, h, w in prompt.grid.tolist()],
        resized_to=list(stats.resized),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
