"""A model's rules against transformers' own processors, made from the same generation_config.json."""

from dataclasses import replace

import numpy as np
import pytest

from router.resolve import layered
from router.sampling import NO_RULES, Sampler, from_generation_config, rules_from
from router.types import Sampling
from tests.sampling.test_transformers import ANSWER, END, PROMPT, VOCAB, Generating, agrees, rows, shares

transformers = pytest.importorskip("transformers")

ONE = (3,)
BIASES = [[[1], 4.0], [[7, 4], -6.0], [[9, 7, 2], 7.5], [[3, 9], 9.0], [[0, 1, 2, 3, 4, 5, 6, 7, 8], 5.0]]
WORDS = [[1], [END], [7, 4], [9, 7, 2], [20, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8]]

# name: generation_config.json, prompt, answer so far
CASES = {
    "suppressed": ({"suppress_tokens": [END, 1, 2, 400, -1]}, PROMPT, ANSWER),
    "suppressed at the beginning": ({"begin_suppress_tokens": [END, 1, 2]}, PROMPT, ()),
    "no token twice": (
        {"no_repeat_ngram_size": 1, "suppress_tokens": [END]},
        (3, 4, 8, 20, *range(30, 48)),
        (),
    ),
    "no pair twice": ({"no_repeat_ngram_size": 2}, (7, END), ANSWER),
    "no triple twice": ({"no_repeat_ngram_size": 3}, (3, 3, END, 20), (3, 3)),
    "no pair of the prompt": ({"encoder_no_repeat_ngram_size": 2}, (9, END, 9, 1), (7, 9)),
    "bad words": ({"bad_words_ids": [*WORDS, [7, END]]}, PROMPT, ANSWER),
    "biased words": ({"sequence_bias": BIASES}, PROMPT, ANSWER),
    "a likelier prompt": ({"encoder_repetition_penalty": 1.5}, PROMPT, ANSWER),
    "a less likely prompt": ({"encoder_repetition_penalty": 0.4, "repetition_penalty": 1.7}, PROMPT, ANSWER),
    "a forced end": ({"forced_eos_token_id": 2, "max_new_tokens": 4}, PROMPT, ANSWER),
    "forced ends": ({"forced_eos_token_id": [2, END, 9], "max_new_tokens": 4}, PROMPT, ANSWER),
    "a forced begin": ({"forced_bos_token_id": 8}, ONE, ()),
    "suppressed after a forced begin": (
        {"forced_bos_token_id": 8, "begin_suppress_tokens": [END]},
        ONE,
        (8,),
    ),
    "an end more and more likely": ({"exponential_decay_length_penalty": [1, 1.3]}, PROMPT, ANSWER),
    "an end that is barred": (
        {"exponential_decay_length_penalty": [0, 1.3], "min_new_tokens": 4, "suppress_tokens": [1]},
        PROMPT,
        ANSWER,
    ),
    "a least length": ({"min_length": len(PROMPT + ANSWER) + 1}, PROMPT, ANSWER),
    "top_h": ({"top_h": 0.4}, PROMPT, ANSWER),
    "typical_p": ({"typical_p": 0.5}, PROMPT, ANSWER),
    "epsilon_cutoff": ({"epsilon_cutoff": 0.05}, PROMPT, ANSWER),
    "eta_cutoff": ({"eta_cutoff": 0.2}, PROMPT, ANSWER),
    "all": (
        {
            "sequence_bias": BIASES,
            "encoder_repetition_penalty": 1.4,
            "repetition_penalty": 1.2,
            "no_repeat_ngram_size": 2,
            "encoder_no_repeat_ngram_size": 2,
            "bad_words_ids": WORDS,
            "min_new_tokens": 2,
            "exponential_decay_length_penalty": [1, 0.8],
            "suppress_tokens": [11, 12],
            "begin_suppress_tokens": [13],
            "temperature": 1.4,
            "top_h": 0.95,
            "top_k": 30,
            "top_p": 0.97,
            "min_p": 0.001,
            "typical_p": 0.9,
            "epsilon_cutoff": 0.01,
            "eta_cutoff": 0.02,
        },
        PROMPT,
        ANSWER,
    ),
}


def chain(data, prompt):
    """The processors that ``generate`` makes once it has filled in the lengths."""
    config = transformers.GenerationConfig.from_dict(
        {"top_k": 0, **data, "do_sample": True, "eos_token_id": END}
    )
    config.max_length = len(prompt) + (config.max_new_tokens or 20)
    return Generating().processors(config, prompt)


def read(data, prompt):
    """What the resolver makes of the same file."""
    data = {"top_k": 0, **data, "do_sample": True}
    rules = rules_from(data, VOCAB)
    return layered(Sampling(), from_generation_config(data), rules, len(prompt)), rules


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("step", [0.0, 1.0], ids=["apart", "ties"])
def test_the_distribution_is_that_of_transformers(case, step):
    data, prompt, answer = case
    sampling, rules = read(data, prompt)
    for row in rows(step):
        share = shares(row, chain(data, prompt), prompt + answer)
        assert agrees(row, sampling, share, rules, prompt, answer)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_that_is_dropped_would_be_noticed(name):
    data, prompt, answer = CASES[name]
    sampling = replace(read(data, prompt)[0], min_tokens=0)
    theirs = [shares(row, chain(data, prompt), prompt + answer) for row in rows()]
    assert not all(
        agrees(row, sampling, share, NO_RULES, prompt, answer)
        for row, share in zip(rows(), theirs, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("no pair twice", {"no_repeat_ngram_size": 3}),
        ("no pair of the prompt", {"no_repeat_ngram_size": 3}),
        ("bad words", {"bad_words_ids": WORDS}),
        ("biased words", {"sequence_bias": BIASES[:2]}),
        ("forced ends", {"forced_eos_token_id": [2, END, 9], "max_new_tokens": 5}),
        ("an end more and more likely", {"exponential_decay_length_penalty": [2, 1.3]}),
        ("a least length", {"min_length": len(PROMPT + ANSWER)}),
        ("top_h", {"top_h": 0.7}),
        ("typical_p", {"typical_p": 0.8}),
        ("epsilon_cutoff", {"epsilon_cutoff": 0.15}),
        ("eta_cutoff", {"eta_cutoff": 0.9}),
    ],
)
def test_a_rule_that_is_off_by_a_little_would_be_noticed(name, other):
    data, prompt, answer = CASES[name]
    sampling, rules = read(other, prompt)
    theirs = [shares(row, chain(data, prompt), prompt + answer) for row in rows()]
    assert not all(
        agrees(row, sampling, share, rules, prompt, answer) for row, share in zip(rows(), theirs, strict=True)
    )


def test_transformers_order_is_the_documented_one():
    data, prompt, _ = CASES["all"]
    extra = {"forced_bos_token_id": 1, "forced_eos_token_id": 2, "min_length": 9}
    assert [type(processor).__name__ for processor in chain(data | extra, prompt)] == [
        "SequenceBiasLogitsProcessor",
        "EncoderRepetitionPenaltyLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "NoRepeatNGramLogitsProcessor",
        "EncoderNoRepeatNGramLogitsProcessor",
        "NoBadWordsLogitsProcessor",
        "MinLengthLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "ForcedBOSTokenLogitsProcessor",
        "ForcedEOSTokenLogitsProcessor",
        "ExponentialDecayLengthPenalty",
        "SuppressTokensLogitsProcessor",
        "SuppressTokensAtBeginLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopHLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
        "TypicalLogitsWarper",
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
    ]


def test_what_a_grammar_bars_is_not_forced():
    sampling, rules = read({"forced_eos_token_id": [2, 9], "max_new_tokens": 1}, PROMPT)
    scores = next(rows())
    barred = scores.copy()
    barred[2] = -np.inf
    assert ours_first(sampling, rules, scores) == 2
    assert ours_first(sampling, rules, barred) == 9
    barred[9] = -np.inf
    assert ours_first(sampling, rules, barred) == int(barred.argmax())


def ours_first(sampling, rules, scores):
    return Sampler(replace(sampling, temperature=0.0), np.array(PROMPT), frozenset({END}), rules=rules).pick(
        scores
    )


def test_the_scores_of_the_backend_are_left_as_they_are():
    data, prompt, _ = CASES["all"]
    sampling, rules = read(data, prompt)
    scores = next(rows())
    before = scores.copy()
    Sampler(sampling, np.array(prompt), frozenset({END}), rules=rules).pick(scores)
    assert np.array_equal(scores, before)
