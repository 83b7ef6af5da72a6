"""Every field of transformers' GenerationConfig is obeyed, or changes no token, or is named."""

import pytest

from backends.base import BackendError, RequestError
from router.resolve import layered
from router.sampling import NO_RULES, ModelRules, from_generation_config, ignored, rules_from
from router.sampling.generation_config import NEUTRAL
from router.types import Sampling

VOCAB = 100

# a value of each obeyed field that says something, and what becomes of it
SAMPLING = {
    "temperature": (0.5, Sampling(temperature=0.5)),
    "top_k": (7, Sampling(top_k=7)),
    "top_p": (0.5, Sampling(top_p=0.5)),
    "min_p": (0.1, Sampling(min_p=0.1)),
    "repetition_penalty": (1.5, Sampling(repetition_penalty=1.5)),
    "max_new_tokens": (9, Sampling(max_tokens=9)),
    "min_new_tokens": (3, Sampling(min_tokens=3)),
    "stop_strings": (["a", "bc"], Sampling(stop=("a", "bc"))),
}
RULES = {
    "sequence_bias": ([[[1, 2], -3], [[4], 1.5], [[4], 2.5]], (((1, 2), -3.0), ((4,), 2.5))),
    "encoder_repetition_penalty": (1.5, 1.5),
    "no_repeat_ngram_size": (3, 3),
    "encoder_no_repeat_ngram_size": (3, 3),
    "bad_words_ids": ([[1], [2, 3], [1]], ((1,), (2, 3))),
    "forced_bos_token_id": (4, 4),
    "forced_eos_token_id": (4, (4,)),
    "exponential_decay_length_penalty": ([5, 1.1], (5, 1.1)),
    "suppress_tokens": ([1, 2, 400], (1, 2, 400)),
    "begin_suppress_tokens": ([1], (1,)),
    "top_h": (0.5, 0.5),
    "typical_p": (0.5, 0.5),
    "epsilon_cutoff": (0.1, 0.1),
    "eta_cutoff": (0.1, 0.1),
    "max_length": (50, 50),
    "min_length": (5, 5),
}
IGNORED = {
    "num_beams": 4,
    "num_beam_groups": 2,
    "num_return_sequences": 3,
    "constraints": [1],
    "force_words_ids": [[1]],
    "penalty_alpha": 0.6,
    "dola_layers": "high",
    "guidance_scale": 1.5,
    "watermarking_config": {"bias": 2.0},
    "token_healing": True,
    "max_time": 5.0,
    "remove_invalid_values": True,
    "of_a_later_version": 1,
}


def walked():
    transformers = pytest.importorskip("transformers")
    return set(vars(transformers.GenerationConfig())) - {"_commit_hash", "_original_object_hash"}


def test_every_field_of_transformers_is_obeyed_or_changes_nothing_or_is_named() -> None:
    of_us = {*SAMPLING, *RULES, *IGNORED, *NEUTRAL}
    assert walked() - of_us == set()
    assert of_us - walked() - {"of_a_later_version"} == set()
    assert len(of_us) == sum(map(len, (SAMPLING, RULES, IGNORED, NEUTRAL)))


def test_a_field_that_nobody_treats_would_be_noticed() -> None:
    assert ignored({"a_new_one": False})
    assert "a_new_one" not in walked()


@pytest.mark.parametrize("name", SAMPLING)
def test_a_field_of_sampling_is_read(name: str) -> None:
    value, wanted = SAMPLING[name]
    assert from_generation_config({"do_sample": True, name: value}) == wanted.over(
        Sampling(temperature=1.0, top_k=50)
    )
    assert ignored({name: value}) == ()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_read_and_null_is_none(name: str) -> None:
    value, wanted = RULES[name]
    assert rules_from({name: value}, VOCAB) == ModelRules(**{name: wanted})
    assert rules_from({name: None}, VOCAB) == NO_RULES != ModelRules(**{name: wanted})
    assert ignored({name: value}) == ()


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_not_done_is_named(name: str) -> None:
    (sentence,) = ignored({name: IGNORED[name], "do_sample": False})
    assert sentence.startswith(f"{name} is ignored: ")


def test_what_does_nothing_in_transformers_is_not_named() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GenerationConfig()
    said = {**vars(config), **config._get_default_generation_params()}
    assert ignored(said) == ()
    assert rules_from({**said, "max_length": None}, VOCAB) == NO_RULES
    assert ignored({"_name_or_path": "x", "num_beams": 1.0}) == ()


def test_more_stop_strings_than_are_looked_for_are_named_and_not_half_obeyed() -> None:
    said = {"stop_strings": ["a", "b", "c", "d", "e"]}
    assert from_generation_config(said).stop is None
    assert ignored(said) == ("stop_strings is ignored: only 4 strings of 1 to 256 characters are looked for",)
    assert from_generation_config({"stop_strings": "END"}).stop == ("END",)
    assert ignored({"stop_strings": []}) == ()


@pytest.mark.parametrize(
    "said",
    [
        {"sequence_bias": {"1": 2.0}},
        {"sequence_bias": [[[VOCAB], 2.0]]},
        {"sequence_bias": [[[1], "much"]]},
        {"sequence_bias": [[[1], 1e39]]},
        {"encoder_repetition_penalty": 0},
        {"no_repeat_ngram_size": 2.5},
        {"bad_words_ids": [1]},
        {"bad_words_ids": [[]]},
        {"bad_words_ids": [[-1]]},
        {"bad_words_ids": [[VOCAB]]},
        {"forced_bos_token_id": VOCAB},
        {"forced_eos_token_id": []},
        {"forced_eos_token_id": "end"},
        {"exponential_decay_length_penalty": 1.1},
        {"exponential_decay_length_penalty": [1.5, 1.1]},
        {"suppress_tokens": 3},
        {"suppress_tokens": [True]},
        {"begin_suppress_tokens": "all"},
        {"top_h": 0},
        {"typical_p": 0},
        {"epsilon_cutoff": "small"},
        {"max_length": 0},
        {"min_length": [1]},
    ],
)
def test_a_value_that_transformers_refuses_is_the_models_fault(said: dict) -> None:
    with pytest.raises(
        BackendError, match=rf"^generation_config\.json: {next(iter(said))} must be"
    ) as caught:
        rules_from(said, VOCAB)
    assert caught.value.code == "model_invalid"


def test_a_request_comes_before_the_models_new_tokens_and_these_before_its_lengths() -> None:
    rules = ModelRules(max_length=50, min_length=15)
    assert layered(Sampling(), Sampling(), rules, 10).max_tokens == 40
    assert layered(Sampling(), Sampling(), rules, 10).min_tokens == 5
    assert layered(Sampling(), Sampling(), rules, 20).min_tokens == 0
    assert layered(Sampling(), Sampling(max_tokens=30, min_tokens=2), rules, 10).max_tokens == 30
    assert layered(Sampling(), Sampling(max_tokens=30, min_tokens=2), rules, 10).min_tokens == 2
    assert layered(Sampling(max_tokens=45), Sampling(max_tokens=30), rules, 10).max_tokens == 45
    assert layered(Sampling(), Sampling(), NO_RULES, 10).max_tokens == 1024


def test_a_models_least_gives_way_to_a_request_and_a_requests_own_does_not() -> None:
    sampling = layered(Sampling(max_tokens=3), Sampling(min_tokens=8), NO_RULES, 10)
    assert (sampling.min_tokens, sampling.max_tokens) == (3, 3)
    with pytest.raises(RequestError, match="min_tokens must be at most max_tokens"):
        layered(Sampling(min_tokens=8), Sampling(max_tokens=3), NO_RULES, 10)


def test_a_prompt_as_long_as_the_models_max_length_is_refused_with_both_numbers() -> None:
    with pytest.raises(RequestError, match=r"prompt is 50 tokens.*max_length 50.*give max_tokens") as caught:
        layered(Sampling(), Sampling(), ModelRules(max_length=50), 50)
    assert caught.value.code == "context_length_exceeded"
    assert layered(Sampling(max_tokens=5), Sampling(), ModelRules(max_length=50), 50).max_tokens == 5
