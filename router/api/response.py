"""What every answer has: OpenAI's objects, what this server adds to them, and how they are filled in."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from backends.base import Prompt
from router.api.request import ParsedRequest
from router.types import Decision, Stats

Piece: TypeAlias = "Callable[[int], bytes]"  # the bytes of a token; none for a control token


class Object(BaseModel):
    """An object of an answer; fields that were not given are left out of its JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def json_text(self) -> str:
        """Its JSON, on one line."""
        return self.model_dump_json(exclude_unset=True)


class ErrorDetail(Object):
    """What went wrong: in words, its kind, the field at fault, and a stable word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Object):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class PromptDetails(Object):
    """Parts of the prompt's tokens."""

    cached_tokens: int
    image_tokens: int


class CompletionDetails(Object):
    """Parts of the answer's tokens: there are none."""


class Usage(Object):
    """How many tokens an answer took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Timings(Object):
    """How long an answer took, as llama.cpp says it, and how its images were read."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    vision_ms: float
    image_tokens: int
    image_grid_thw: list[tuple[int, int, int]]
    resized_to: list[tuple[int, int]]


class Routing(Object):
    """Who answered and why, for ``x-hybrid-debug: 1``."""

    backend: str
    reason: str
    fallbacks: list[str]


Finish = Literal["stop", "length"]


class ResponseObject(Object):
    """What every answer, and every chunk of one, begins with and may end with."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Any]
    usage: Usage | None = None
    timings: Timings | None = None
    hybrid: Routing | None = None


class ModelMeta(Object):
    """What a model can do here."""

    context: int
    backends: list[str]


class ModelObject(Object):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    capabilities: list[str]
    meta: ModelMeta


class ModelList(Object):
    """Every model that is served."""

    object: Literal["list"]
    data: list[ModelObject]


@dataclass(frozen=True)
class Envelope:
    """What is the same in every object of one answer."""

    model: str
    prompt: Prompt
    piece: Piece
    request: ParsedRequest
    routing: Decision | None = None  # where the client asks for it
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self, kind: str) -> dict[str, Any]:
        """The fields with which an object of this answer begins."""
        return {"id": f"{kind}-{self.id}", "created": self.created, "model": self.model}

    def chunk_fields(self, kind: str) -> dict[str, Any]:
        """The same for a chunk: usage is null in all of them but the last, where it is asked for."""
        return {**self.fields(kind), **({"usage": None} if self.request.include_usage else {})}

    def final_fields(self, stats: Stats) -> dict[str, Any]:
        """The fields that follow when the answer is whole."""
        fields: dict[str, Any] = {"timings": timings(stats, self.prompt)}
        if (decision := self.routing) is not None:
            fields["hybrid"] = Routing(
                backend=stats.backend, reason=decision.reason, fallbacks=list(decision.fallbacks)
            )
        return fields


def token_text(text: bytes) -> str:
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
