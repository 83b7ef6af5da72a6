import math
from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import RequestError
from router.sampling import BUILT_IN, PRESETS, Sampler, check
from router.types import Sampling

VOCAB = 1000
NAMES = [field.name for field in fields(Sampling)]

GOOD = {
    "temperature": [0, 0.0, 5e-324, 1, 2.0],
    "top_k": [0, 1, 10**30],
    "top_p": [1e-9, 0.5, 1],
    "min_p": [0, 0.0, 0.999],
    "repetition_penalty": [0.01, 1, 10.0],
    "presence_penalty": [-2, 0.5, 2.0],
    "frequency_penalty": [-2.0, 0, 2],
    "logit_bias": [(), ((0, -100), (VOCAB - 1, 100.0)), tuple((i, 0.5) for i in range(300))],
    "max_tokens": [1, 10**9],
    "min_tokens": [0, 7],
    "ignore_eos": [True, False],
    "stop": [(), ("a",), ("\n\n", "é", "👍", "x" * 256), ("\x00",)],
    "stop_token_ids": [(), (0, VOCAB - 1)],
    "seed": [-(2**63), -1, 0, 2**63 - 1],
    "logprobs": [0, 20],
}
BAD = {
    "temperature": [-0.01, 2.01, 10**400, -(2**63), math.nan, math.inf, -math.inf, True, "1", (1,)],
    "top_k": [-1, 1.0, math.nan, True, "5"],
    "top_p": [0, 0.0, -0.1, 1.0001, 2**63, math.nan, math.inf, True, "1"],
    "min_p": [-0.1, 1, 1.5, math.nan, False, "0"],
    "repetition_penalty": [0, 0.0099, -1.0, 10.1, math.nan, math.inf, True, "1"],
    "presence_penalty": [-2.1, 2.1, math.nan, math.inf, False, "0"],
    "frequency_penalty": [-2.1, 2.1, math.nan, -math.inf, True, "0"],
    "logit_bias": [
        *({1: 2.0}, "ab", ((1, 2.0, 3),), ((-1, 0),), ((VOCAB, 0),), ((True, 0),), (("1", 0),), ((1.0, 0),)),
        *(((1, 100.1),), ((1, -101),), ((1, math.nan),), ((1, True),), ((1, "2"),), ((1, 0), (1, 1)), (5,)),
        tuple((i, 0.5) for i in range(301)),
    ],
    "max_tokens": [0, -1, 2**63 * -1, 1.5, math.inf, True, "9"],
    "min_tokens": [-1, 1.0, math.nan, False, "0"],
    "ignore_eos": [0, 1, "true", 0.0],
    "stop": ["abc", ["a"], ("",), (5,), ("a", None), ("x" * 257,), ("a",) * 5, (b"a",), {"a": 1}],
    "stop_token_ids": [5, [5], (-1,), (VOCAB,), (1.0,), (True,), ("1",), (None,), (2**63,), (10**5000,)],
    "seed": [2**63, -(2**63) - 1, 1.0, math.nan, True, "0", 10**5000],
    "logprobs": [-1, 21, 1.0, True, "2"],
}


def cases(table):
    return [
        pytest.param(name, value, id=f"{name}-{i}") for name in NAMES for i, value in enumerate(table[name])
    ]


@pytest.mark.parametrize(("name", "value"), cases(GOOD))
def test_a_value_inside_its_range_passes(name, value):
    check(Sampling(**{name: value}), VOCAB)


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_a_value_outside_its_range_is_refused_by_name(name, value):
    with pytest.raises(RequestError, match=name) as caught:
        check(Sampling(**{name: value}), VOCAB)
    assert caught.value.param == name
    assert len(str(caught.value)) < 250


def test_a_refusal_names_the_range_and_the_value():
    with pytest.raises(RequestError, match=r"top_p must be a number above 0 and at most 1, got 1\.5"):
        check(Sampling(top_p=1.5), VOCAB)
    with pytest.raises(
        RequestError, match="stop_token_ids must be made of token ids from 0 to 999, got 1000"
    ):
        check(Sampling(stop_token_ids=(1000,)), VOCAB)


def test_min_tokens_may_reach_max_tokens_and_no_further():
    check(Sampling(min_tokens=8, max_tokens=8), VOCAB)
    with pytest.raises(RequestError, match=r"at most max_tokens \(8\), got 9") as caught:
        check(Sampling(min_tokens=9, max_tokens=8), VOCAB)
    assert caught.value.param == "min_tokens"


def test_a_stop_string_with_half_a_character_is_an_encoding_fault():
    with pytest.raises(RequestError) as caught:
        check(Sampling(stop=("a\ud83d",)), VOCAB)
    assert (caught.value.code, caught.value.param) == ("invalid_encoding", "stop")
    str(caught.value).encode()


SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from([2**63, -(2**63), 2**64]) | st.floats()
ITEMS = SCALARS | st.text(max_size=5) | st.tuples(SCALARS, SCALARS)
ANYTHING = ITEMS | st.lists(ITEMS, max_size=5).map(tuple)


@given(st.sampled_from(NAMES), ANYTHING)
@settings(max_examples=500, deadline=None)
def test_whatever_a_field_holds_it_is_refused_or_it_works(name, value):
    sampling = replace(PRESETS["creative"].over(BUILT_IN), **{name: value})
    with suppress(RequestError):
        check(sampling, VOCAB)
        assert 0 <= Sampler(sampling, np.arange(3)).pick(np.zeros(VOCAB, dtype=np.float32)) < VOCAB
