"""``POST /v1/chat/completions``: its body, its answers, and how they are streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from backends.base import RequestError
from router.api.dialect import OPENAI_EVENTS, Dialect
from router.api.errors import ErrorResponse, openai_error
from router.api.messages import Detail, parse_message
from router.api.parse import Document, RequestBody, parse, refuse_unsupported, unread_fields, unsupported
from router.api.request import UNSUPPORTED, ParsedRequest, PixelLimits, SamplingBody, max_pixels, sampling
from router.api.response import Envelope, Error, Finish, Object, ResponseObject, token_text, usage
from router.sampling import ANY_OBJECT
from router.types import Chunk, Completion, TokenScore


class TextPart(RequestBody):
    """A text."""

    type: Literal["text", "input_text"]
    text: str


class ImageUrl(RequestBody):
    """An image, and how closely to look at it."""

    url: str
    detail: Detail | None = None


class ImagePart(RequestBody):
    """An image: a data URI, or an address whose host the server allows."""

    type: Literal["image_url", "input_image"]
    image_url: ImageUrl | str
    detail: Detail | None = None


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(RequestBody):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class JsonSchema(RequestBody):
    """The schema that the answer keeps to."""

    name: str | None = None
    description: str | None = None
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class AnyFormat(RequestBody):
    """Any text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(RequestBody):
    """JSON that keeps to a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[AnyFormat | SchemaFormat, Field(discriminator="type")]


class ChatBody(SamplingBody):
    """What to answer, and how."""

    messages: Annotated[list[ChatMessage], Field(json_schema_extra={"minItems": 1})]
    max_completion_tokens: Annotated[int | None, Field(json_schema_extra={"minimum": 1})] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": 20})] = None
    response_format: ResponseFormat | None = None


def read_chat(document: Document) -> ParsedRequest:
    """What a body asks for. RequestError names what cannot be followed."""
    refuse_unsupported(document, UNSUPPORTED)
    _refuse_tool_turns(document)
    body = parse(ChatBody, document)
    if not body.messages:
        raise RequestError("there is no message to answer; give at least one", param="messages")
    # the model checked their types; each is read as it stands
    messages = tuple(parse_message(m, f"messages[{i}]") for i, m in enumerate(document["messages"]))
    sources = tuple(source for message in messages for source in message.sources)
    pixels = body.mm_processor_kwargs or PixelLimits()
    return ParsedRequest(
        model=body.model,
        messages=messages,
        sampling=sampling(body, _max_tokens(body), _logprobs(body)),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        json_schema=_schema(body.response_format),
        min_pixels=pixels.min_pixels,
        max_pixels=max_pixels(sources, pixels.max_pixels),
        ignored=unread_fields(body, UNSUPPORTED),
    )


def _refuse_tool_turns(document: Document) -> None:
    messages = document.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict):
            continue
        if message.get("role") in ("tool", "function"):
            raise unsupported(f"messages[{index}].role", "there are no tools here; drop the message")
        for name in ("tool_calls", "function_call", "audio"):
            if message.get(name):
                raise unsupported(f"messages[{index}].{name}", "drop it, or put it into the text")


def _max_tokens(body: ChatBody) -> int | None:
    new, old = body.max_completion_tokens, body.max_tokens
    if new is not None and old is not None and new != old:
        raise RequestError(
            "max_tokens and max_completion_tokens differ; give one of them", param="max_tokens"
        )
    if new is not None and new < 1:
        raise RequestError("max_completion_tokens must be at least 1", param="max_completion_tokens")
    return old if new is None else new


def _logprobs(body: ChatBody) -> int | None:
    top = body.top_logprobs or 0
    if not 0 <= top <= 20:
        raise RequestError("top_logprobs must be a whole number from 0 to 20", param="top_logprobs")
    if top and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    return top if body.logprobs else None


def _schema(form: AnyFormat | SchemaFormat | None) -> str | None:
    if isinstance(form, SchemaFormat):
        return json.dumps(form.json_schema.json_schema, ensure_ascii=False)
    return ANY_OBJECT if form is not None and form.type == "json_object" else None


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


class ChatWriter:
    """``chat.completion`` and its chunks."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope

    def opening(self) -> Iterator[Object]:
        """Who speaks."""
        yield self._chunk(
            DeltaChoice(index=0, delta=Delta(role="assistant", content=""), logprobs=None, finish_reason=None)
        )

    def chunk(self, chunk: Chunk) -> Iterator[Object]:
        """The text, if there is any; at the end why it ended, what it took, and the usage if asked for."""
        scores = self._scores(chunk.logprobs)
        if chunk.text or scores:
            yield self._chunk(
                DeltaChoice(index=0, delta=Delta(content=chunk.text), logprobs=scores, finish_reason=None)
            )
        if chunk.finish is None or chunk.stats is None:
            return
        last = DeltaChoice(index=0, delta=Delta(), logprobs=None, finish_reason=chunk.finish)
        yield self._chunk(last, **self._envelope.final_fields(chunk.stats))
        if self._envelope.request.include_usage:
            yield self._chunk(usage=usage(chunk.stats))

    def failed(self, error: ErrorResponse) -> Iterator[Object]:
        """The error."""
        yield error.body

    def whole(self, completion: Completion) -> Object:
        """The completion."""
        message = AnswerMessage(role="assistant", content=completion.text, refusal=None)
        choice = ChatChoice(
            index=0,
            message=message,
            logprobs=self._scores(completion.logprobs),
            finish_reason=completion.finish,
        )
        return ChatCompletion(
            **self._envelope.fields("chatcmpl"),
            object="chat.completion",
            choices=[choice],
            usage=usage(completion.stats),
            **self._envelope.final_fields(completion.stats),
        )

    def _chunk(self, *choices: DeltaChoice, **more: Any) -> ChatChunk:
        fields = {**self._envelope.chunk_fields("chatcmpl"), **more}
        return ChatChunk(**fields, object="chat.completion.chunk", choices=list(choices))

    def _scores(self, scores: tuple[TokenScore, ...]) -> ChatScores | None:
        content = [
            Score(
                **_token(text, score.logprob),
                top_logprobs=[TopScore(**_token(self._envelope.piece(t), p)) for t, p in score.top],
            )
            for score in scores
            if (text := self._envelope.piece(score.token))
        ]
        return ChatScores(content=content, refusal=None) if content else None


def _token(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token_text(text), "logprob": logprob, "bytes": list(text)}


CHAT = Dialect(
    path="/v1/chat/completions",
    name="chat_completions",
    description="Answer a conversation of texts and images; with ``stream`` as server-sent events.",
    body=ChatBody,
    whole=ChatCompletion,
    piece=ChatChunk,
    read=read_chat,
    writer=ChatWriter,
    framing=OPENAI_EVENTS,
    error=openai_error,
    error_body=Error,
)
