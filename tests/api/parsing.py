"""Chat bodies parsed, and what they are refused with."""

from collections.abc import Callable
from typing import Any

import pytest

from backends.base import RequestError
from router.api.chat import read_chat
from router.api.request import ParsedRequest

BASE = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def refused(make: Callable[[], object]) -> tuple[str, str | None, str]:
    with pytest.raises(RequestError) as caught:
        make()
    return caught.value.code, caught.value.param, str(caught.value)


def ask(**fields: object) -> ParsedRequest:
    return read_chat({**BASE, **fields})


ALL_SAMPLING: dict[str, Any] = {
    "temperature": 1,
    "top_k": 3,
    "top_p": 0.5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"42": -100, "7": 0.5},
    "max_tokens": 9,
    "min_tokens": 2,
    "ignore_eos": True,
    "stop": ["a", "b"],
    "stop_token_ids": [3],
    "seed": -1,
}
