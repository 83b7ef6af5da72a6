"""An answer as ``text_completion``, or as its chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.api.figures import usage
from router.api.objects import Answered, TextChoice, TextCompletion, TextScores
from router.api.response import Envelope, shown
from router.types import Chunk, Completion, TokenScore


class TextForm:
    """``text_completion`` and its chunks."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._offset = 0

    def opening(self) -> Iterator[Answered]:
        """Nothing: a text has no role."""
        return iter(())

    def chunk(self, chunk: Chunk) -> Iterator[Answered]:
        """As in a chat, but the reason to end comes with the last text."""
        scores = self._scores(chunk.logprobs)
        ended = chunk.finish is not None and chunk.stats is not None
        if chunk.text or scores or ended:
            choice = TextChoice(index=0, text=chunk.text, logprobs=scores, finish_reason=chunk.finish)
            yield self._sent(choice, **(self._envelope.ending(chunk.stats) if chunk.stats else {}))
        if chunk.stats and self._envelope.include_usage:
            yield self._sent(usage=usage(chunk.stats))

    def whole(self, completion: Completion) -> Answered:
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
