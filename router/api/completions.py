"""The older ``POST /v1/completions``: its prompt is read as one message of the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from backends.base import RequestError
from router.api.dialect import OPENAI_EVENTS, Dialect
from router.api.errors import ErrorResponse, openai_error
from router.api.messages import ParsedMessage
from router.api.parse import Document, parse, refuse_unsupported, unread_fields
from router.api.request import UNSUPPORTED, ParsedRequest, SamplingBody, sampling
from router.api.response import Envelope, Error, Finish, Object, ResponseObject, token_text, usage
from router.types import Chunk, Completion, TokenScore

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {**UNSUPPORTED, "suffix": ("",), "response_format": ()}


class CompletionBody(SamplingBody):
    """What to answer, and how."""

    prompt: Annotated[str | list[str], Field(json_schema_extra={"minItems": 1, "maxItems": 1})]
    logprobs: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": 20})] = None


def read_completion(document: Document) -> ParsedRequest:
    """What a body asks for. RequestError names what cannot be followed."""
    refuse_unsupported(document, _UNSUPPORTED)
    body = parse(CompletionBody, document)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if len(prompts) != 1:
        raise RequestError("prompt must be one text: one answer is given to a request", param="prompt")
    return ParsedRequest(
        model=body.model,
        messages=(ParsedMessage("user", (prompts[0],)),),
        sampling=sampling(body, body.max_tokens, body.logprobs),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        ignored=unread_fields(body, _UNSUPPORTED),
    )


class TextScores(Object):
    """Log probabilities of a text completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


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


class CompletionWriter:
    """``text_completion`` and its chunks."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._offset = 0

    def opening(self) -> Iterator[Object]:
        """Nothing: a text has no role."""
        return iter(())

    def chunk(self, chunk: Chunk) -> Iterator[Object]:
        """As in a chat, but the reason to end comes with the last text."""
        scores = self._scores(chunk.logprobs)
        ended = chunk.finish is not None and chunk.stats is not None
        if chunk.text or scores or ended:
            choice = TextChoice(index=0, text=chunk.text, logprobs=scores, finish_reason=chunk.finish)
            yield self._chunk(choice, **(self._envelope.final_fields(chunk.stats) if chunk.stats else {}))
        if chunk.stats and self._envelope.request.include_usage:
            yield self._chunk(usage=usage(chunk.stats))

    def failed(self, error: ErrorResponse) -> Iterator[Object]:
        """The error."""
        yield error.body

    def whole(self, completion: Completion) -> Object:
        """The completion."""
        choice = TextChoice(
            index=0,
            text=completion.text,
            logprobs=self._scores(completion.logprobs),
            finish_reason=completion.finish,
        )
        fields = {"usage": usage(completion.stats), **self._envelope.final_fields(completion.stats)}
        return TextCompletion(
            **self._envelope.fields("cmpl"), object="text_completion", choices=[choice], **fields
        )

    def _chunk(self, *choices: TextChoice, **more: Any) -> TextCompletion:
        fields = {**self._envelope.chunk_fields("cmpl"), **more}
        return TextCompletion(**fields, object="text_completion", choices=list(choices))

    def _scores(self, scores: tuple[TokenScore, ...]) -> TextScores | None:
        scored = [
            (text, score) for score in scores if (text := token_text(self._envelope.piece(score.token)))
        ]
        if not scored:
            return None
        offsets = []
        for text, _ in scored:
            offsets.append(self._offset)
            self._offset += len(text)
        return TextScores(
            tokens=[text for text, _ in scored],
            token_logprobs=[score.logprob for _, score in scored],
            top_logprobs=[{self._text(t): p for t, p in score.top} for _, score in scored],
            text_offset=offsets,
        )

    def _text(self, token: int) -> str:
        return token_text(self._envelope.piece(token))


COMPLETIONS = Dialect(
    path="/v1/completions",
    name="completions",
    description="Answer a prompt, which is read as one message of the user.",
    body=CompletionBody,
    whole=TextCompletion,
    piece=TextCompletion,
    read=read_completion,
    writer=CompletionWriter,
    framing=OPENAI_EVENTS,
    error=openai_error,
    error_body=Error,
)
