"""Picks one token from one row of scores.

In this order, which is transformers' own wherever both have the operation (``_get_logits_processor``). A star
marks what is of `ModelRules`, which only a model's generation_config.json sets:

1. ``logit_bias`` is added (transformers: ``sequence_bias`` of one token), and ``sequence_bias``*; then
   ``encoder_repetition_penalty``* changes the scores of the prompt's tokens.
2. ``repetition_penalty`` divides a positive score and multiplies a negative one, once for every token id that
   stands in the prompt or in the answer so far.
3. ``presence_penalty`` once, and ``frequency_penalty`` per occurrence, are subtracted for tokens of the
   answer so far, the prompt not counted (not in transformers; OpenAI's definition).
4. Until ``min_tokens`` tokens are picked, the tokens that would end the answer are banned. So are tokens that
   would repeat an n-gram* (``no_repeat_ngram_size``, ``encoder_no_repeat_ngram_size``) or end a word of
   ``bad_words_ids``*. ``forced_bos_token_id``* and ``forced_eos_token_id``* leave no other choice;
   ``exponential_decay_length_penalty``* raises the ends; ``suppress_tokens``* and ``begin_suppress_tokens``*
   are banned.
5. Temperature 0 takes the highest score, of equals the lowest id. Else scores are divided by ``temperature``.
6. ``top_h``* keeps the likeliest tokens that have this share of the entropy; ``top_k`` keeps the k highest
   scores and all that equal the k-th.
7. ``top_p`` keeps the likeliest tokens, each as long as those before it hold less than ``top_p`` of the mass
   that ``top_k`` left. Of equals at the edge the lower ids stay; transformers leaves open which.
8. ``min_p`` keeps tokens at least ``min_p`` times as likely as the likeliest; then ``typical_p``*,
   ``epsilon_cutoff``* and ``eta_cutoff``* cut what is less likely than expected, or than they say.
9. One uniform number per token picks from what is left, whatever the filters, in order of token id.

Of the filters, every one leaves a token.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError, Logits
from router.sampling.filters import largest, nucleus, weights_of
from router.sampling.rules import NO_RULES, AppliedRules, ModelRules
from router.types import Sampling, TokenScore


class Sampler:
    """Picks the tokens of one answer, and remembers them for the penalties.

    ``sampling`` has passed ``check``; what it leaves unset is neutral. ``end`` is what ``end_tokens`` gave.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: NDArray[np.int64],
        end: frozenset[int] = frozenset(),
        uniform: Callable[[], float] | None = None,
        rules: ModelRules = NO_RULES,
    ) -> None:
        """``uniform`` gives numbers of [0, 1), one a token; None: PCG64's from the seed."""
        self._sampling = sampling
        self._prompt_ids = prompt_ids  # [tokens]
        self._end = np.array(sorted(end), dtype=np.int64)
        # hardly a model has any: then no token pays for them
        self._rules = None if rules == NO_RULES else AppliedRules(rules, prompt_ids, end, sampling.max_tokens)
        self._uniform = uniform or np.random.Generator(np.random.PCG64(_entropy(sampling.seed))).random
        self._picked = 0
        self._counts: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # [vocab]: how often in the answer
        self._seen: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)  # [vocab]: in the prompt or the answer
        self._ids: NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # [vocab]: every token id

    def pick(self, logits: Logits) -> int:
        """The next token; ``logits`` is left as it is.

        Raises BackendError (``numerical_error``) when a score is NaN or +inf, or none is above -inf.
        """
        _refuse_broken(logits)
        if self._picked == 0:
            self._measure(logits.size)
        scores = self._adjusted(logits)
        if scores is not logits:
            _refuse_broken(scores)
        temperature = self._sampling.temperature or 0.0
        token = self._drawn(scores, temperature) if temperature > 0 else int(scores.argmax())
        self._picked += 1
        self._counts[token] += 1
        self._seen[token] = True
        if self._rules is not None:
            self._rules.accept(token)
        return token

    def _measure(self, vocab: int) -> None:
        self._counts = np.zeros(vocab, dtype=np.int32)
        self._seen = np.zeros(vocab, dtype=np.bool_)
        self._ids = np.arange(vocab)
        # An embedding table may be longer than the head; what the head cannot pick needs no penalty
        self._seen[self._prompt_ids[self._prompt_ids < vocab]] = True
        self._end = self._end[self._end < vocab]

    def _adjusted(self, logits: Logits) -> Logits:
        """Steps 1 to 4, on a copy; ``logits`` itself when none of them applies."""
        sampling = self._sampling
        penalty = sampling.repetition_penalty or 1.0
        presence, frequency = sampling.presence_penalty or 0.0, sampling.frequency_penalty or 0.0
        banned = self._end if self._picked < (sampling.min_tokens or 0) else self._end[:0]
        rules = self._rules if self._rules is not None and self._rules.change_scores else None
        if not (rules or sampling.logit_bias or penalty != 1.0 or presence or frequency or banned.size):
            return logits
        scores = logits.copy()
        for token, bias in sampling.logit_bias or ():
            scores[token] += bias
        if rules:
            rules.bias(scores)
        if penalty != 1.0:
            ids = np.flatnonzero(self._seen)
            repeated = scores[ids]
            with np.errstate(over="ignore"):  # a score masked with the lowest float may become -inf
                scores[ids] = np.where(repeated < 0, repeated * penalty, repeated / penalty)
        if presence or frequency:
            ids = np.flatnonzero(self._counts)
            scores[ids] -= presence + frequency * self._counts[ids].astype(np.float32)
        scores[banned] = -np.inf
        if rules:
            rules.restrict(scores, logits)
        return scores

    def _drawn(self, scores: Logits, temperature: float) -> int:
        """Steps 5 to 9."""
        top_k, top_p, min_p = self._sampling.top_k, self._sampling.top_p or 1.0, self._sampling.min_p or 0.0
        ids, rules = self._ids, self._rules
        if rules is not None and (kept := rules.entropic(scores, temperature)) is not None:
            ids, scores = kept, scores[kept]
        if top_k:
            kept = largest(scores, top_k)
            ids, scores = ids[kept], scores[kept]
        weights = weights_of(scores, temperature)
        if top_p < 1:
            kept = nucleus(weights, top_p)
            ids, weights = ids[kept], weights[kept]
        if min_p > 0:
            kept = np.flatnonzero(weights >= min_p)
            ids, weights = ids[kept], weights[kept]
        if rules is not None and rules.cut:
            kept = rules.kept(weights)
            ids, weights = ids[kept], weights[kept]
        sums = weights.astype(np.float64)
        np.cumsum(sums, out=sums)
        # a number below 1 is at most 1 - 2^-53, so the point is on a token that has weight
        point = self._uniform() * sums[-1]
        return int(ids[np.searchsorted(sums, point, side="right")])

    def reported(self, logits: Logits, token: int) -> tuple[TokenScore, ...]:
        """What the answer tells of a token picked from ``logits``: nothing, unless ``logprobs`` was asked."""
        top = self._sampling.logprobs
        return () if top is None else (score(logits, token, top),)


def end_tokens(sampling: Sampling, eos: frozenset[int]) -> frozenset[int]:
    """What ends an answer: the model's ``eos`` unless ``ignore_eos``, and ``stop_token_ids`` in any case."""
    model_ends = frozenset[int]() if sampling.ignore_eos else eos
    return model_ends | frozenset(sampling.stop_token_ids or ())


def score(logits: Logits, token: int, top: int = 0) -> TokenScore:
    """Natural log probability of ``token`` and of the ``top`` likeliest, by the model's own scores.

    That is before bias, penalties, bans, temperature and filters. A token at -inf is never among the ``top``.
    """
    _refuse_broken(logits)
    total = float(logits.max()) + float(np.log(weights_of(logits, 1.0).sum(dtype=np.float64)))
    candidates = largest(logits, top) if top else ()
    best = sorted((-float(logits[i]), int(i)) for i in candidates if logits[i] > -np.inf)[:top]
    return TokenScore(token, float(logits[token]) - total, tuple((i, -value - total) for value, i in best))


def _refuse_broken(scores: Logits) -> None:
    # max() carries a NaN from anywhere, so one pass tells all three faults
    high = scores.max()
    if not np.isfinite(high):
        fault = "no token is possible" if high == -np.inf else f"a score is {high}"
        raise BackendError(f"the model's scores cannot be sampled: {fault}", code="numerical_error")


def _entropy(seed: int | None) -> int | None:
    return None if seed is None else seed % 2**64  # numpy takes no negative seeds
