from dataclasses import fields

import pytest

from backends.base import BackendError
from router.sampling import BUILT_IN, PRESETS, check, end_tokens, from_generation_config
from router.types import Sampling


def test_the_built_in_values_and_the_presets_pass_their_own_check():
    check(Sampling(), 1000)
    check(BUILT_IN, 1000)
    for preset in PRESETS.values():
        check(preset.over(BUILT_IN), 1000)
    unset = {field.name for field in fields(Sampling) if getattr(BUILT_IN, field.name) is None}
    assert unset == {"seed", "logprobs"}


def test_a_model_without_do_sample_is_greedy_and_one_with_it_samples_as_it_says():
    config = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "max_new_tokens": 64}
    assert from_generation_config(config).temperature == 0.0
    assert from_generation_config(config | {"do_sample": False}).temperature == 0.0
    sampling = from_generation_config(config | {"do_sample": True, "eos_token_id": [1, 2], "min_p": None})
    assert sampling == Sampling(0.7, 20, 0.8, repetition_penalty=1.05, max_tokens=64)
    # transformers' own where a model samples and says no more; so is a field that is null
    assert from_generation_config({"do_sample": True, "top_k": None}) == Sampling(temperature=1.0, top_k=50)
    assert from_generation_config({}) == Sampling(temperature=0.0)


@pytest.mark.parametrize(
    "config", [{"top_p": 0}, {"top_k": -1}, {"temperature": "hot"}, {"do_sample": 1}, {"max_new_tokens": 0}]
)
def test_a_bad_generation_config_is_the_models_fault(config):
    with pytest.raises(BackendError, match=r"generation_config\.json") as caught:
        from_generation_config({"do_sample": True} | config)
    assert caught.value.code == "model_invalid"


def test_ignore_eos_leaves_only_the_callers_own_stop_tokens():
    eos = frozenset({1, 2})
    assert end_tokens(Sampling(stop_token_ids=(9,)), eos) == {1, 2, 9}
    assert end_tokens(Sampling(stop_token_ids=(9,), ignore_eos=True), eos) == {9}
    assert end_tokens(Sampling(), eos) == eos
