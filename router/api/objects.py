"""What goes out: OpenAI's objects, and what this server adds to them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


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


class TopScore(Object):
    """A token that might have been picked."""

    token: str
    logprob: float
    bytes: list[int]


class Score(TopScore):
    """A token of the answer."""

    top_logprobs: list[TopScore]


class ChatScores(Object):
    """Log probabilities of a chat completion."""

    content: list[Score]
    refusal: None


class TextScores(Object):
    """Log probabilities of a text completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


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


class AnswerMessage(Object):
    """The answer's message."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Object):
    """The one answer of a chat completion."""

    index: int
    message: AnswerMessage
    logprobs: ChatScores | None
    finish_reason: Finish


class ChatCompletion(ResponseObject):
    """A whole chat completion."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Delta(Object):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class DeltaChoice(Object):
    """What a chunk adds to the one answer."""

    index: int
    delta: Delta
    logprobs: ChatScores | None
    finish_reason: Finish | None


class ChatChunk(ResponseObject):
    """A piece of a chat completion."""

    object: Literal["chat.completion.chunk"]
    choices: list[DeltaChoice]


class TextChoice(Object):
    """The one answer of a text completion, or a piece of it."""

    index: int
    text: str
    logprobs: TextScores | None
    finish_reason: Finish | None


class TextCompletion(ResponseObject):
    """A text completion, or a piece of it."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


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
