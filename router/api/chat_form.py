"""An answer as ``chat.completion``, or as its chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.api.figures import usage
from router.api.objects import (
    Answered,
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatScores,
    Delta,
    DeltaChoice,
    Score,
    TopScore,
)
from router.api.response import Envelope, shown
from router.types import Chunk, Completion, TokenScore


class ChatForm:
    """``chat.completion`` and its chunks."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope

    def opening(self) -> Iterator[Answered]:
        """Who speaks."""
        yield self._sent(
            DeltaChoice(index=0, delta=Delta(role="assistant", content=""), logprobs=None, finish_reason=None)
        )

    def chunk(self, chunk: Chunk) -> Iterator[Answered]:
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

    def whole(self, completion: Completion) -> Answered:
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
