"""The body of ``POST /v1/chat/completions``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from backends.base import RequestError
from router.api.objects import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatScores,
    Delta,
    DeltaChoice,
    ResponseObject,
    Score,
    TopScore,
)
from router.api.parse import Document, RequestBody, named, parse, refuse_unsupported, unread, unsupported
from router.api.request import (
    Detail,
    ImageSource,
    ParsedMessage,
    ParsedRequest,
    PixelLimits,
    SamplingBody,
    max_pixels,
    sampling,
    source,
)
from router.api.response import Envelope, shown, usage
from router.sampling.grammar import ANY_OBJECT
from router.types import Chunk, Completion, Role, TokenScore

# What would change the answer and is not done here, and the values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "echo": (False,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "grammar": (),
    "json_schema": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
}


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


def chat_ask(document: Document) -> ParsedRequest:
    """A chat completion's body, understood. RequestError names what cannot be."""
    refuse_unsupported(document, UNSUPPORTED)
    _refuse_tool_turns(document)
    body = parse(ChatBody, document)
    if not body.messages:
        raise RequestError("there is no message to answer; give at least one", param="messages")
    turns = tuple(_turn(message, f"messages[{i}]") for i, message in enumerate(body.messages))
    sources = tuple(part for turn in turns for part in turn.parts if isinstance(part, ImageSource))
    pixels = body.mm_processor_kwargs or PixelLimits()
    return ParsedRequest(
        form="chat",
        model=body.model,
        turns=turns,
        sampling=sampling(body, _max_tokens(body), _logprobs(body)),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        json_schema=_schema(body.response_format),
        min_pixels=pixels.min_pixels,
        max_pixels=max_pixels(sources, pixels.max_pixels),
        ignored=named(unread(body, UNSUPPORTED)),
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


def _turn(message: ChatMessage, param: str) -> ParsedMessage:
    role: Role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return ParsedMessage(role, (message.content,))
    return ParsedMessage(
        role, tuple(_part(part, f"{param}.content[{i}]") for i, part in enumerate(message.content))
    )


def _part(part: TextPart | ImagePart, param: str) -> str | ImageSource:
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part.image_url, str):
        return source(part.image_url, param, part.detail or "auto")
    return source(part.image_url.url, param, part.image_url.detail or part.detail or "auto")


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


def _schema(said: AnyFormat | SchemaFormat | None) -> str | None:
    if isinstance(said, SchemaFormat):
        return json.dumps(said.json_schema.json_schema, ensure_ascii=False)
    return ANY_OBJECT if said is not None and said.type == "json_object" else None


class ChatWriter:
    """``chat.completion`` and its chunks."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope

    def opening(self) -> Iterator[ResponseObject]:
        """Who speaks."""
        yield self._sent(
            DeltaChoice(index=0, delta=Delta(role="assistant", content=""), logprobs=None, finish_reason=None)
        )

    def chunk(self, chunk: Chunk) -> Iterator[ResponseObject]:
        """The text, if there is any; at the end why it ended, what it took, and the usage if asked for."""
        scores = self._scores(chunk.logprobs)
        if chunk.text or scores:
            yield self._sent(
                DeltaChoice(index=0, delta=Delta(content=chunk.text), logprobs=scores, finish_reason=None)
            )
        if chunk.finish is None or chunk.stats is None:
            return
        last = DeltaChoice(index=0, delta=Delta(), logprobs=None, finish_reason=chunk.finish)
        yield self._sent(last, **self._envelope.ending(chunk.stats))
        if self._envelope.include_usage:
            yield self._sent(usage=usage(chunk.stats))

    def whole(self, completion: Completion) -> ResponseObject:
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
            **self._envelope.ending(completion.stats),
        )

    def _sent(self, *choices: DeltaChoice, **more: Any) -> ChatChunk:
        told = {**self._envelope.streamed("chatcmpl"), **more}
        return ChatChunk(**told, object="chat.completion.chunk", choices=list(choices))

    def _scores(self, scores: tuple[TokenScore, ...]) -> ChatScores | None:
        content = [
            Score(
                **_named(text, score.logprob),
                top_logprobs=[TopScore(**_named(self._envelope.piece(t), p)) for t, p in score.top],
            )
            for score in scores
            if (text := self._envelope.piece(score.token))
        ]
        return ChatScores(content=content, refusal=None) if content else None


def _named(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown(text), "logprob": logprob, "bytes": list(text)}
