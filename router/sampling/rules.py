"""What only a model's generation_config.json sets, beside the fields of `Sampling`: tokens never said, say.

`ModelRules` is what the file says, read once for a model; `AppliedRules` holds one answer to it. Each rule is
transformers' own of the same name, and `Sampler` applies it at transformers' place in the order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.base import Logits, RequestError
from router.sampling.filters import entropic, eta, likely, typical
from router.types import Sampling

Ids = tuple[int, ...]  # tokens that follow one another


@dataclass(frozen=True)
class ModelRules:
    """One model's rules; what is left as it stands here changes nothing."""

    sequence_bias: tuple[
        tuple[Ids, float], ...
    ] = ()  # added to the last token's score, where the others came
    encoder_repetition_penalty: float = 1.0  # above 1: tokens of the prompt are likelier
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0  # n-grams of the prompt only
    bad_words_ids: tuple[Ids, ...] = ()
    forced_bos_token_id: int | None = None  # after a prompt of one token
    forced_eos_token_id: Ids = ()  # one of them is the last token that max_tokens allows
    exponential_decay_length_penalty: tuple[int, float] | None = None  # after so many tokens; factor
    suppress_tokens: Ids = ()
    begin_suppress_tokens: Ids = ()
    top_h: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    max_length: int | None = None  # tokens of prompt and answer
    min_length: int = 0

    def with_lengths(self, sampling: Sampling, prompt_tokens: int) -> Sampling:
        """``sampling``; where it is silent, ``max_length`` and ``min_length`` as tokens of an answer.

        RequestError ``context_length_exceeded``: ``max_length`` leaves no room for one.
        """
        most = None if self.max_length is None else self.max_length - prompt_tokens
        if sampling.max_tokens is None and most is not None and most < 1:
            raise RequestError(
                f"the prompt is {prompt_tokens} tokens, and the model's generation_config.json sets "
                f"max_length {self.max_length} for prompt and answer: shorten the prompt or give max_tokens",
                code="context_length_exceeded",
                param="max_tokens",
            )
        least = self.min_length - prompt_tokens
        return sampling.over(Sampling(max_tokens=most, min_tokens=least if least > 0 else None))


NO_RULES = ModelRules()

# what changes scores or cuts weights; lengths are the resolver's
_SCORES = (
    *("sequence_bias", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty"),
    *("suppress_tokens", "begin_suppress_tokens"),
)
_CUTS = ("typical_p", "epsilon_cutoff", "eta_cutoff")


class AppliedRules:
    """Holds one answer to the rules of its model."""

    def __init__(
        self, rules: ModelRules, prompt_ids: NDArray[np.int64], end: frozenset[int], max_tokens: int | None
    ) -> None:
        self._rules = rules
        self._prompt_tokens = len(prompt_ids)
        self._end = _array(sorted(end))
        self._max_tokens = max_tokens
        self.change_scores = any(getattr(rules, name) != getattr(NO_RULES, name) for name in _SCORES)
        self.cut = any(getattr(rules, name) != getattr(NO_RULES, name) for name in _CUTS)
        self._ids: list[int] = prompt_ids.tolist() if self.change_scores else []  # prompt and answer
        self._prompts = np.unique(prompt_ids) if rules.encoder_repetition_penalty != 1.0 else _array(())
        self._suppressed, self._suppressed_first = map(
            _array, (rules.suppress_tokens, rules.begin_suppress_tokens)
        )
        # an end that is a bad word stays an end
        self._bad_tokens = _array(w[0] for w in rules.bad_words_ids if len(w) == 1 and w[0] not in end)
        self._bad_words = tuple(word for word in rules.bad_words_ids if len(word) > 1)
        # what followed n-1 tokens, by these tokens
        self._answers_grams = _Grams(rules.no_repeat_ngram_size, self._ids)
        self._prompts_grams = _Grams(rules.encoder_no_repeat_ngram_size, self._ids)

    def accept(self, token: int) -> None:
        """Go on past ``token``, which was picked."""
        if self.change_scores:
            self._ids.append(token)
            self._answers_grams.read(self._ids)

    def bias(self, scores: Logits) -> None:
        """Change ``scores`` by what comes before the penalties: ``sequence_bias``, what the prompt gains."""
        for sequence, bias in self._rules.sequence_bias:
            if self._may_complete(sequence):
                scores[sequence[-1]] += np.float32(bias)
        if (penalty := self._rules.encoder_repetition_penalty) != 1.0:
            ids = _within(self._prompts, scores.size)
            repeated = scores[ids]
            factor = np.float32(1 / penalty)
            scores[ids] = np.where(repeated < 0, repeated * factor, repeated / factor)

    def restrict(self, scores: Logits, possible: Logits) -> None:
        """Change ``scores`` by what comes after the penalties.

        ``possible``: the scores as they came; what is at -inf there, since a grammar bars it, is not forced.
        """
        rules, picked = self._rules, len(self._ids) - self._prompt_tokens
        for grams in (self._answers_grams, self._prompts_grams):
            scores[_within(_array(grams.followers(self._ids)), scores.size)] = -np.inf
        scores[self._bad_tokens] = -np.inf
        for word in self._bad_words:
            if self._may_complete(word):
                scores[word[-1]] = -np.inf
        begins_late = False
        if rules.forced_bos_token_id is not None and self._prompt_tokens == 1:
            begins_late = True
            if picked == 0:
                _force(scores, possible, (rules.forced_bos_token_id,))
        if self._max_tokens is not None and picked == self._max_tokens - 1:
            _force(scores, possible, rules.forced_eos_token_id)
        self._raise_end(scores, picked)
        scores[_within(self._suppressed, scores.size)] = -np.inf
        if picked == begins_late:
            scores[_within(self._suppressed_first, scores.size)] = -np.inf

    def entropic(self, scores: Logits, temperature: float) -> NDArray[np.int64] | None:
        """Where the tokens stand that ``top_h`` keeps; None where there is no ``top_h``."""
        return None if self._rules.top_h is None else entropic(scores, temperature, self._rules.top_h)

    def kept(self, weights: NDArray[np.float32]) -> NDArray[np.int64]:
        """Where the tokens stand that ``typical_p``, ``epsilon_cutoff``, ``eta_cutoff`` leave, in turns."""
        rules = self._rules
        left = np.arange(weights.size)
        if rules.typical_p < 1:
            left = left[typical(weights[left], rules.typical_p)]
        if 0 < rules.epsilon_cutoff < 1:
            left = left[likely(weights[left], rules.epsilon_cutoff)]
        if 0 < rules.eta_cutoff < 1:
            left = left[likely(weights[left], eta(weights[left], rules.eta_cutoff))]
        return left

    def _may_complete(self, sequence: Ids) -> bool:
        """Whether all tokens of ``sequence`` but its last are the latest."""
        before = len(sequence) - 1
        return before <= len(self._ids) and tuple(self._ids[len(self._ids) - before :]) == sequence[:-1]

    def _raise_end(self, scores: Logits, picked: int) -> None:
        if self._rules.exponential_decay_length_penalty is None:
            return
        start, factor = self._rules.exponential_decay_length_penalty
        end = _within(self._end, scores.size)
        if picked > start and end.size:
            with np.errstate(over="ignore", invalid="ignore"):
                raised = np.abs(scores[end]) * np.float32(_power(factor, picked - start) - 1)
            scores[end] += np.where(np.isfinite(scores[end]), raised, np.float32(0))


class _Grams:
    """Which tokens would repeat a sequence of ``size`` tokens; 0 is off."""

    def __init__(self, size: int, ids: list[int]) -> None:
        self._size = size
        self._followers: dict[Ids, set[int]] = defaultdict(set)
        if size > 0:
            for end in range(size, len(ids) + 1):
                self._add(ids, end)

    def read(self, ids: list[int]) -> None:
        """``ids`` has one token more."""
        if 0 < self._size <= len(ids):
            self._add(ids, len(ids))

    def followers(self, ids: list[int]) -> Iterable[int]:
        """What followed the last ``size`` - 1 of ``ids`` before."""
        before = self._size - 1
        if not 0 <= before <= len(ids):
            return ()
        return self._followers.get(tuple(ids[len(ids) - before :]), ())

    def _add(self, ids: list[int], end: int) -> None:
        self._followers[tuple(ids[end - self._size : end - 1])].add(ids[end - 1])


def _force(scores: Logits, possible: Logits, tokens: Ids) -> None:
    allowed = [token for token in tokens if possible[token] > -np.inf]
    if allowed:
        scores[:] = -np.inf
        scores[allowed] = 0.0


def _array(ids: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(ids), np.int64)


def _within(ids: NDArray[np.int64], vocab: int) -> NDArray[np.int64]:
    """Those of ``ids`` that have a score."""
    kept: NDArray[np.int64] = ids[(ids >= 0) & (ids < vocab)]
    return kept


def _power(factor: float, exponent: int) -> float:
    try:
        return float(factor**exponent)
    except OverflowError:
        return float("inf")
