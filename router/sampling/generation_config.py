"""A model's generation_config.json, as transformers 5.23 reads it: sampling, rules, and what is not done.

Every field of transformers' ``GenerationConfig`` is obeyed, or neutral (`NEUTRAL`: the tokens are the same
with it), or named by `ignored`. A value that transformers itself refuses is the model's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from backends.base import BackendError, RequestError
from router.sampling.options import MAX_STOP_CHARACTERS, MAX_STOPS, check, check_numbers
from router.sampling.rules import Ids, ModelRules
from router.types import Sampling

# transformers' name: ours
_FIELDS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
}
_TOP_K = 50  # transformers' own where a model samples and names none

NEUTRAL = frozenset(
    (
        # read elsewhere, or only where nothing is padded, batched or encoded apart
        *("do_sample", "eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id"),
        # how fast, and in which memory
        *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size"),
        *("compile_config", "disable_compile", "continuous_batching_config", "low_memory"),
        # guessing ahead: what is guessed wrongly is taken back
        *("use_mtp", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule"),
        *("assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
        *("assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "speculation_type"),
        *("assistant_ensemble_weight",),  # only with a second model, which is no part of a checkpoint
        # what is returned beside the tokens
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
        "return_dict_in_generate",
        "renormalize_logits",  # the likeliest stays it, and shares are normalized when one is drawn
        *("early_stopping", "length_penalty", "diversity_penalty"),  # only with beams, which are named
        *("transformers_version", "_from_model_config"),
    )
)

# what is not done: the value with which it does nothing, and what happens instead
_IGNORED: Mapping[str, tuple[Any, str]] = {
    "num_beams": (1, "one answer is followed, not several beams"),
    "num_beam_groups": (1, "one answer is followed, not several beams"),
    "num_return_sequences": (1, "one answer is given"),
    "constraints": (None, "nothing is made to appear in an answer"),
    "force_words_ids": (None, "nothing is made to appear in an answer"),
    "penalty_alpha": (0, "the likeliest token is not searched by contrast"),
    "dola_layers": (None, "layers are not compared"),
    "guidance_scale": (1, "answers are not guided by a second prompt"),
    "watermarking_config": (None, "answers bear no watermark"),
    "token_healing": (False, "a prompt's last token stays as it is"),
    "max_time": (None, "answers end by tokens, not by seconds"),
    "remove_invalid_values": (False, "scores that are not numbers end an answer with an error"),
}


_STOPS = f"only {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters are looked for"


def from_generation_config(data: Mapping[str, Any]) -> Sampling:
    """The fields of `Sampling` that it sets; without ``do_sample`` it is greedy, as in transformers.

    Raises BackendError (``model_invalid``) for a value outside the ranges of ``check``.
    """
    samples = data.get("do_sample")
    if samples is not None and not isinstance(samples, bool):
        raise _invalid(f"do_sample must be true or false, got {samples!r:.80}")
    sampling = Sampling(**{ours: data[theirs] for theirs, ours in _FIELDS.items() if theirs in data})
    try:
        # apart, for min_new_tokens may be above max_new_tokens: then no answer ends before its limit
        check_numbers(replace(sampling, min_tokens=None))
        check_numbers(Sampling(min_tokens=sampling.min_tokens))
    except RequestError as error:
        raise _invalid(str(error)) from error
    sampling = replace(sampling, stop=_stop(data))
    if not samples:
        return replace(sampling, temperature=0.0)
    # A config that samples and names no temperature means 1, not the greedy value of the layer below
    return sampling.over(Sampling(temperature=1.0, top_k=_TOP_K))


def rules_from(data: Mapping[str, Any], vocab: int) -> ModelRules:
    """The rules that it sets, for a model of ``vocab`` scores.

    Raises BackendError (``model_invalid``) for a value that transformers refuses, or an id that needs a score
    and has none.
    """
    fields = {
        name: read(name, value, vocab)
        for name, read in _RULES.items()
        if (value := data.get(name)) is not None
    }
    return ModelRules(**fields)


def ignored(data: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each field that would change answers and is not done, in the order of the file."""
    sentences = []
    for name, value in data.items():
        if name in _IGNORED:
            neutral, instead = _IGNORED[name]
            if value is not None and value != neutral:
                sentences.append(f"{name} is ignored: {instead}")
        elif name == "stop_strings":
            if value and _stop(data) is None:
                sentences.append(f"{name} is ignored: {_STOPS}")
        elif not (name in _FIELDS or name in _RULES or name in NEUTRAL or name.startswith("_")):
            sentences.append(f"{name} is ignored: no field of this name is known")
    return tuple(sentences)


def _stop(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """``stop_strings`` where they are such as a request may have, else None."""
    texts = data.get("stop_strings")
    stop = (texts,) if isinstance(texts, str) else tuple(texts) if isinstance(texts, list) else ()
    try:
        check(Sampling(stop=stop), 0)
    except RequestError:
        return None
    return stop or None


def _number(words: str, inside: Callable[[float], bool], *, whole: bool = False) -> Callable[..., Any]:
    """Reads a number; ``words``: what it must be."""

    def read(name: str, value: Any, _vocab: int) -> Any:
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not inside(value):
            raise _invalid(f"{name} must be {words}, got {value!r:.80}")
        return value

    return read


def _any_ids(name: str, value: Any, _vocab: int) -> Ids:
    """Ids, of which those that have no score are no matter."""
    if not isinstance(value, list) or any(type(token) is not int for token in value):
        raise _invalid(f"{name} must be a list of token ids, got {value!r:.80}")
    return tuple(token for token in value if abs(token) < 2**62)


def _ids(name: str, value: Any, vocab: int) -> Ids:
    ids = _any_ids(name, value if isinstance(value, list) else [value], vocab)
    if not ids or not all(0 <= token < vocab for token in ids):
        raise _invalid(f"{name} must be made of token ids from 0 to {vocab - 1}, got {value!r:.80}")
    return ids


def _id(name: str, value: Any, vocab: int) -> int:
    return _ids(name, value, vocab)[0]


def _words(name: str, value: Any, vocab: int) -> tuple[Ids, ...]:
    if not isinstance(value, list) or not all(isinstance(word, list) for word in value):
        raise _invalid(f"{name} must be a list of lists of token ids, got {value!r:.80}")
    return tuple(dict.fromkeys(_ids(name, word, vocab) for word in value))


def _biases(name: str, value: Any, vocab: int) -> tuple[tuple[Ids, float], ...]:
    pairs = value if isinstance(value, list) else [value]
    if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], list) for pair in pairs):
        raise _invalid(f"{name} must be a list of pairs of token ids and a number, got {value!r:.80}")
    number = _number("made of finite numbers", lambda v: abs(v) < 1e38)
    # of equals the last counts, as in a mapping
    return tuple({_ids(name, ids, vocab): float(number(name, bias, vocab)) for ids, bias in pairs}.items())


def _decay(name: str, value: Any, vocab: int) -> tuple[int, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise _invalid(f"{name} must be a number of tokens and a factor, got {value!r:.80}")
    count = _number("a number of tokens and a factor", lambda _: True, whole=True)
    factor = _number("a number of tokens and a factor", lambda v: abs(v) < float("inf"))
    return count(name, value[0], vocab), float(factor(name, value[1], vocab))


# what is below 0 is off, as in transformers
_WHOLE = _number("a whole number", lambda _: True, whole=True)
_CUTOFF = _number("a number", lambda _: True)

_RULES: Mapping[str, Callable[[str, Any, int], Any]] = {
    "sequence_bias": _biases,
    "encoder_repetition_penalty": _number("a number above 0", lambda v: 0 < v < float("inf")),
    "no_repeat_ngram_size": _WHOLE,
    "encoder_no_repeat_ngram_size": _WHOLE,
    "bad_words_ids": _words,
    "forced_bos_token_id": _id,
    "forced_eos_token_id": _ids,
    "exponential_decay_length_penalty": _decay,
    "suppress_tokens": _any_ids,
    "begin_suppress_tokens": _any_ids,
    "top_h": _number("a number above 0 and at most 1", lambda v: 0 < v <= 1),
    "typical_p": _number("a number above 0", lambda v: v > 0),
    "epsilon_cutoff": _CUTOFF,
    "eta_cutoff": _CUTOFF,
    "max_length": _number("a whole number of at least 1", lambda v: v >= 1, whole=True),
    "min_length": _WHOLE,
}


def _invalid(reason: str) -> BackendError:
    return BackendError(f"generation_config.json: {reason}", code="model_invalid")
