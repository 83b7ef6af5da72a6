"""The layers under a request: named presets, the model's own generation_config.json, the built-in values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from backends.base import BackendError, RequestError
from router.sampling.limits import check_numbers
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


def from_generation_config(data: Mapping[str, Any]) -> Sampling:
    """What a model's generation_config.json says; without ``do_sample`` it is greedy, as in transformers.

    Raises BackendError (``model_invalid``) for a value outside the ranges of ``check``.
    """
    samples = data.get("do_sample")
    if samples is not None and not isinstance(samples, bool):
        raise _invalid(f"do_sample must be true or false, got {samples!r:.80}")
    sampling = Sampling(**{ours: data[theirs] for theirs, ours in _FIELDS.items() if theirs in data})
    try:
        check_numbers(sampling)
    except RequestError as error:
        raise _invalid(str(error)) from error
    if not samples:
        return replace(sampling, temperature=0.0)
    # A config that samples and names no temperature means 1, not the greedy value of the layer below
    return sampling.over(Sampling(temperature=1.0))


def _invalid(reason: str) -> BackendError:
    return BackendError(f"generation_config.json: {reason}", code="model_invalid")
