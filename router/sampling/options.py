"""The fields of `Sampling`: the range of each, checked in words, and its value where a request is silent.

A request lies over the preset it names, that over the model's own generation_config.json (read by the file of
that name), and that over `BUILT_IN`. Ranges are checked before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from backends.base import RequestError
from router.types import Sampling

BUILT_IN = Sampling(
    temperature=0.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    logit_bias=(),
    max_tokens=1024,
    min_tokens=0,
    ignore_eos=False,
    stop=(),
    stop_token_ids=(),
)
"""The last layer: greedy and neutral. ``seed`` None draws a fresh one, ``logprobs`` None reports none."""

PRESETS: Mapping[str, Sampling] = MappingProxyType(
    {
        "greedy": Sampling(temperature=0.0),
        "focused": Sampling(temperature=0.3, top_k=20, top_p=0.95),
        "balanced": Sampling(temperature=0.7, top_k=50, top_p=0.9),
        "creative": Sampling(temperature=1.0, top_k=100, top_p=0.85),
        "very-creative": Sampling(temperature=1.5, top_k=200, top_p=0.8),
    }
)

MAX_BIASES = 300
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256

# field: (whole numbers only, the range in words, the range); NaN compares false, so it is outside every range
_NUMBERS: dict[str, tuple[bool, str, Callable[[float], bool]]] = {
    "temperature": (False, "a number from 0 to 2", lambda v: 0 <= v <= 2),
    "top_k": (True, "a whole number of at least 0 (0 is off)", lambda v: v >= 0),
    "top_p": (False, "a number above 0 and at most 1", lambda v: 0 < v <= 1),
    "min_p": (False, "a number of at least 0 and below 1", lambda v: 0 <= v < 1),
    "repetition_penalty": (False, "a number from 0.01 to 10", lambda v: 0.01 <= v <= 10),
    "presence_penalty": (False, "a number from -2 to 2", lambda v: -2 <= v <= 2),
    "frequency_penalty": (False, "a number from -2 to 2", lambda v: -2 <= v <= 2),
    "max_tokens": (True, "a whole number of at least 1", lambda v: v >= 1),
    "min_tokens": (True, "a whole number of at least 0", lambda v: v >= 0),
    "seed": (True, "a whole number from -2^63 to 2^63 - 1", lambda v: -(2**63) <= v < 2**63),
    "logprobs": (True, "a whole number from 0 to 20", lambda v: 0 <= v <= 20),
}


def check(sampling: Sampling, vocab: int) -> None:
    """Raise RequestError, ``param`` the field's name, for the first field outside its range; None passes."""
    check_numbers(sampling)
    if sampling.ignore_eos is not None and not isinstance(sampling.ignore_eos, bool):
        raise _refusal("ignore_eos", "true or false", sampling.ignore_eos)
    _check_stop(sampling.stop)
    _check_ids("stop_token_ids", sampling.stop_token_ids, vocab)
    _check_bias(sampling.logit_bias, vocab)


def check_numbers(sampling: Sampling) -> None:
    """The part of ``check`` that needs no vocabulary: every field that is one number."""
    for name, (whole, words, inside) in _NUMBERS.items():
        value = getattr(sampling, name)
        if value is not None and not (_is_number(value, whole) and inside(value)):
            raise _refusal(name, words, value)
    low, high = sampling.min_tokens, sampling.max_tokens
    if low is not None and high is not None and low > high:
        raise _refusal("min_tokens", f"at most max_tokens ({_shown(high)})", low)


def _check_stop(stop: Any) -> None:
    if stop is None:
        return
    words = f"a tuple of at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters"
    if not isinstance(stop, tuple) or len(stop) > MAX_STOPS:
        raise _refusal("stop", words, stop)
    for text in stop:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise _refusal("stop", words, text)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise RequestError(
                "stop holds half a character (a lone surrogate)", code="invalid_encoding", param="stop"
            )


def _check_ids(name: str, ids: Any, vocab: int) -> None:
    if ids is None:
        return
    if not isinstance(ids, tuple):
        raise _refusal(name, "a tuple of token ids", ids)
    for token in ids:
        if not _is_number(token, whole=True) or not 0 <= token < vocab:
            raise _refusal(name, f"made of token ids from 0 to {vocab - 1}", token)


def _check_bias(bias: Any, vocab: int) -> None:
    if bias is None:
        return
    if not isinstance(bias, tuple) or len(bias) > MAX_BIASES:
        raise _refusal("logit_bias", f"a tuple of at most {MAX_BIASES} pairs of token id and number", bias)
    for pair in bias:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise _refusal("logit_bias", "made of pairs of token id and number", pair)
        if not _is_number(pair[1], whole=False) or not -100 <= pair[1] <= 100:
            raise _refusal("logit_bias", "made of numbers from -100 to 100", pair[1])
    ids = tuple(token for token, _ in bias)
    _check_ids("logit_bias", ids, vocab)
    if len(set(ids)) < len(ids):
        raise RequestError("logit_bias must name every token id once", param="logit_bias")


def _is_number(value: Any, whole: bool) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)


def _refusal(name: str, words: str, value: Any) -> RequestError:
    return RequestError(f"{name} must be {words}, got {_shown(value)}", param=name)


def _shown(value: Any) -> str:
    # Python refuses to print an integer of more than 4300 digits
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, tuple | list | dict):
        return f"{type(value).__name__} of {len(value)}"
    return f"{value!r:.80}"
