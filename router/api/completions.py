"""The body of the older ``POST /v1/completions``: its prompt is read as one message of the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from backends.base import RequestError
from router.api.chat import UNSUPPORTED
from router.api.objects import ResponseObject, TextChoice, TextCompletion, TextScores
from router.api.parse import Document, named, parse, refuse_unsupported, unread
from router.api.request import ParsedMessage, ParsedRequest, SamplingBody, sampling
from router.api.response import Envelope, shown, usage
from router.types import Chunk, Completion, TokenScore

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {**UNSUPPORTED, "suffix": ("",), "response_format": ()}


class CompletionBody(SamplingBody):
    """What to answer, and how."""

    prompt: Annotated[str | list[str], Field(json_schema_extra={"minItems": 1, "maxItems": 1})]
    logprobs: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": 20})] = None


def completion_ask(document: Document) -> ParsedRequest:
    """A completion's body, understood. RequestError names what cannot be."""
    refuse_unsupported(document, _UNSUPPORTED)
    body = parse(CompletionBody, document)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if len(prompts) != 1:
        raise RequestError("prompt must be one text: one answer is given to a request", param="prompt")
    return ParsedRequest(
        form="text",
        model=body.model,
        turns=(ParsedMessage("user", (prompts[0],)),),
        sampling=sampling(body, body.max_tokens, body.logprobs),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        ignored=named(unread(body, _UNSUPPORTED)),
    )


class CompletionWriter:
    """``text_completion`` and its chunks."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._offset = 0

    def opening(self) -> Iterator[ResponseObject]:
        """Nothing: a text has no role."""
        return iter(())

    def chunk(self, chunk: Chunk) -> Iterator[ResponseObject]:
        """As in a chat, but the reason to end comes with the last text."""
        scores = self._scores(chunk.logprobs)
        ended = chunk.finish is not None and chunk.stats is not None
        if chunk.text or scores or ended:
            choice = TextChoice(index=0, text=chunk.text, logprobs=scores, finish_reason=chunk.finish)
            yield self._sent(choice, **(self._envelope.ending(chunk.stats) if chunk.stats else {}))
        if chunk.stats and self._envelope.include_usage:
            yield self._sent(usage=usage(chunk.stats))

    def whole(self, completion: Completion) -> ResponseObject:
        """The completion."""
        choice = TextChoice(
            index=0,
            text=completion.text,
            logprobs=self._scores(completion.logprobs),
            finish_reason=completion.finish,
        )
        told = {"usage": usage(completion.stats), **self._envelope.ending(completion.stats)}
        return TextCompletion(
            **self._envelope.fields("cmpl"), object="text_completion", choices=[choice], **told
        )

    def _sent(self, *choices: TextChoice, **more: Any) -> TextCompletion:
        told = {**self._envelope.streamed("cmpl"), **more}
        return TextCompletion(**told, object="text_completion", choices=list(choices))

    def _scores(self, scores: tuple[TokenScore, ...]) -> TextScores | None:
        told = [(text, score) for score in scores if (text := shown(self._envelope.piece(score.token)))]
        if not told:
            return None
        offsets = []
        for text, _ in told:
            offsets.append(self._offset)
            self._offset += len(text)
        return TextScores(
            tokens=[text for text, _ in told],
            token_logprobs=[score.logprob for _, score in told],
            top_logprobs=[{shown(self._envelope.piece(t)): p for t, p in score.top} for _, score in told],
            text_offset=offsets,
        )
