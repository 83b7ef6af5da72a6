from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from backends.base import BackendError
from router.sampling import BUILT_IN, PRESETS, Sampler, end_tokens, score
from router.types import Sampling

VOCAB = 40
NO_PROMPT = np.zeros(0, dtype=np.int64)


def scores(seed, vocab=VOCAB, step=0.0):
    values = np.random.default_rng(seed).normal(0, 3, vocab)
    return (np.round(values / step) * step if step else values).astype(np.float32)


def only(token, vocab=VOCAB):
    row = np.full(vocab, -np.inf, dtype=np.float32)
    row[token] = 0.0
    return row


def picked_at(point, logits, sampling, prompt=NO_PROMPT, answer=(), end=frozenset()):
    points = iter([0.5] * len(answer) + [point])
    sampler = Sampler(sampling, np.asarray(prompt, dtype=np.int64), end, points.__next__)
    for token in answer:
        assert sampler.pick(only(token, logits.size)) == token
    return sampler.pick(logits)


def share(logits, sampling):
    """The exact distribution that ``sampling`` leaves of one row of scores, by full sorts in float64."""
    p = np.exp((logits.astype(np.float64) - logits.max()) / sampling.temperature)
    if sampling.top_k:
        p[logits < np.sort(logits)[-sampling.top_k]] = 0
    if sampling.top_p:
        order = np.argsort(-p, kind="stable")
        p[order[np.cumsum(p[order]) - p[order] >= sampling.top_p * p.sum()]] = 0
    p[p < (sampling.min_p or 0.0) * p.max()] = 0
    return p / p.sum()


def fit(counts, share):
    """The p-value of ``counts`` under ``share``; bins that expect fewer than 5 are one bin."""
    expected = share * counts.sum()
    assert not counts[share == 0].any()
    common, rare = expected >= 5, (expected < 5) & (share > 0)
    pairs = list(zip(counts[common], expected[common], strict=True))
    if rare.any():
        pairs.append((counts[rare].sum(), expected[rare].sum()))
    return chisquare(*zip(*pairs, strict=True)).pvalue


@cache
def drawn(sampling, draws=50_000):
    sampler, logits = Sampler(sampling, NO_PROMPT), scores(11)
    return np.bincount([sampler.pick(logits) for _ in range(draws)], minlength=VOCAB)


SETTINGS = [
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=1.7, top_k=12, min_p=0.08, seed=2),
    Sampling(temperature=1.4, top_k=25, top_p=0.9, min_p=0.02, seed=3),
]


@pytest.mark.parametrize("sampling", SETTINGS)
def test_draws_follow_the_filtered_distribution(sampling):
    assert fit(drawn(sampling), share(scores(11), sampling)) > 1e-3


def test_the_draw_test_sees_a_temperature_that_is_off_by_a_twentieth():
    assert fit(drawn(SETTINGS[0]), share(scores(11), Sampling(temperature=1.05))) < 1e-6


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "greedy"])
def test_a_vocabulary_of_real_size_is_cut_as_a_full_sort_would_cut_it(preset):
    sampling = PRESETS[preset].over(BUILT_IN)
    logits = scores(5, 151_936)
    for cut in (sampling, Sampling(temperature=sampling.temperature, top_p=sampling.top_p)):
        sums = np.cumsum(share(logits, cut))
        for point in (0.0, 0.1, 0.5, 0.9, 0.999):
            picked = picked_at(point, logits, cut)
            assert sums[picked] - sums[picked - 1] > 0
            assert sums[picked - 1] - 1e-6 <= point < sums[picked] + 1e-6


@given(st.integers(0, 10**6), st.floats(0.01, 0.999), st.sampled_from([0.2, 1.0, 2.0]))
@settings(max_examples=150, deadline=None)
def test_top_p_keeps_the_smallest_set_that_reaches_it(seed, top_p, temperature):
    logits = scores(seed, 300)
    sampling = Sampling(temperature=temperature, top_p=top_p)
    kept = np.flatnonzero(share(logits, sampling))
    assert picked_at(0.0, logits, sampling) == kept[0]
    assert picked_at(1 - 2**-53, logits, sampling) == kept[-1]


def test_the_last_point_below_one_never_reaches_a_token_without_weight():
    for seed in range(200):
        logits = scores(seed)
        logits[-5:] = -np.inf
        assert picked_at(1 - 2**-53, logits, Sampling(temperature=1.0)) < VOCAB - 5


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others():
    def answer(seed):
        sampler = Sampler(Sampling(temperature=1.5, top_p=0.95, seed=seed), NO_PROMPT)
        return [sampler.pick(scores(step)) for step in range(40)]

    seeds = (0, 1, -1, 2**63 - 1, -(2**63))
    assert [answer(seed) for seed in seeds] == [answer(seed) for seed in seeds]
    assert len({tuple(answer(seed)) for seed in (*seeds, None, None)}) == 7


@pytest.mark.parametrize("sampling", SETTINGS[1:])
def test_every_token_costs_one_uniform_number_whatever_the_filters(sampling):
    numbers, others = np.random.default_rng(9), np.random.default_rng(9)
    plain = Sampler(Sampling(temperature=1.0), NO_PROMPT, uniform=numbers.random)
    filtered = Sampler(sampling, NO_PROMPT, uniform=others.random)
    for step in range(10):
        plain.pick(scores(step))
        filtered.pick(scores(step))
    assert numbers.random() == others.random()


def test_greedy_takes_the_highest_score_and_of_equals_the_lowest_id():
    assert picked_at(0.5, np.array([1, 7, 3, 7], dtype=np.float32), Sampling()) == 1


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-30, 1e-6])
def test_a_temperature_next_to_zero_is_greedy(temperature):
    logits = scores(3)
    for point in (0.0, 0.5, 1 - 2**-53):
        assert picked_at(point, logits, Sampling(temperature=temperature)) == logits.argmax()


@pytest.mark.parametrize("sampling", [Sampling(repetition_penalty=9.0), SETTINGS[2]])
def test_scores_masked_with_the_lowest_float_are_as_good_as_ruled_out(sampling):
    logits = np.full(VOCAB, np.finfo(np.float32).min)
    logits[7] = 9e37
    assert picked_at(0.0, logits, sampling, prompt=[0, 1]) == score(logits, 7, 3).token == 7


def test_the_callers_scores_are_left_as_they_are():
    logits = scores(3)
    before = logits.copy()
    logits.setflags(write=False)
    sampling = Sampling(1.0, 5, 0.9, 0.1, 1.3, 0.5, 0.5, ((3, 5.0),), max_tokens=9, min_tokens=9, logprobs=3)
    sampler = Sampler(sampling, np.arange(10), frozenset({1}))
    for _ in range(5):
        sampler.reported(logits, sampler.pick(logits))
    assert np.array_equal(logits, before)


MANNERS = [Sampling(), *SETTINGS, Sampling(logit_bias=((0, -100.0),), repetition_penalty=2.0)]


@given(
    st.sampled_from([np.nan, np.inf]), st.integers(0, VOCAB - 1), st.sampled_from(MANNERS), st.integers(0, 3)
)
@settings(deadline=None)
def test_a_score_that_is_no_number_is_an_error_at_any_place_and_step(value, place, sampling, step):
    broken = scores(1)
    broken[place] = value
    sampler = Sampler(sampling, NO_PROMPT, frozenset({place}))
    for _ in range(step):
        sampler.pick(scores(2))
    with pytest.raises(BackendError) as caught:
        sampler.pick(broken)
    assert caught.value.code == "numerical_error"


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_k=3, top_p=0.5)])
def test_a_row_that_leaves_no_token_is_an_error(sampling):
    nothing = np.full(VOCAB, -np.inf, dtype=np.float32)
    for logits, end in ((nothing, frozenset()), (only(7), frozenset({7}))):
        sampler = Sampler(Sampling(min_tokens=1, max_tokens=2).over(sampling), NO_PROMPT, end)
        with pytest.raises(BackendError) as caught:
            sampler.pick(logits)
        assert caught.value.code == "numerical_error"


def test_a_token_ruled_out_by_the_model_stays_out_under_the_highest_bias():
    logits = only(7)
    assert picked_at(0.0, logits, Sampling(temperature=1.0, logit_bias=((0, 100.0),))) == 7


def test_end_tokens_are_banned_until_min_tokens_are_picked():
    logits = scores(3)
    logits[[4, 5]] = 50, 60
    sampling = Sampling(min_tokens=3, max_tokens=9, stop_token_ids=(5, VOCAB + 9))
    sampler = Sampler(sampling, NO_PROMPT, end_tokens(sampling, frozenset({4})))
    picks = [sampler.pick(logits) for _ in range(5)]
    assert not {4, 5} & set(picks[:3])
    assert picks[3:] == [5, 5]


def test_presence_counts_once_and_frequency_every_time_and_neither_the_prompt():
    logits = np.zeros(6, dtype=np.float32)
    sampling = Sampling(temperature=1.0, presence_penalty=0.5, frequency_penalty=0.25)
    left = np.array([0, -0.75, -1.0, 0, 0, 0])  # token 1 once, token 2 twice, token 3 only in the prompt
    middles = np.cumsum(np.exp(left)) - np.exp(left) / 2
    for token, point in enumerate(middles / np.exp(left).sum()):
        assert picked_at(point, logits, sampling, prompt=[3, 3], answer=[2, 1, 2]) == token
    edges = np.cumsum(np.exp(left)) / np.exp(left).sum()
    for token, edge in enumerate(edges[:-1]):
        assert picked_at(edge - 1e-6, logits, sampling, prompt=[3], answer=[2, 1, 2]) == token
        assert picked_at(edge + 1e-6, logits, sampling, prompt=[3], answer=[2, 1, 2]) == token + 1


@pytest.mark.parametrize("top", [0, 1, 5, 20])
def test_log_probabilities_are_those_of_the_models_own_scores(top):
    logits = scores(8)
    logits[3] = -np.inf
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    reported = score(logits, 12, top)
    assert reported.logprob == pytest.approx(exact[12], abs=1e-5)
    assert [token for token, _ in reported.top] == list(np.argsort(-exact, kind="stable")[:top])
    assert [value for _, value in reported.top] == pytest.approx(sorted(exact, reverse=True)[:top], abs=1e-5)


def test_equals_among_the_likeliest_come_in_order_of_id_and_the_impossible_never():
    logits = np.array([1, 2, 2, 2, -np.inf], dtype=np.float32)
    assert [token for token, _ in score(logits, 0, 2).top] == [1, 2]
    assert [token for token, _ in score(logits, 0, 20).top] == [1, 2, 3, 0]


def test_log_probabilities_are_told_only_when_asked_for_and_before_any_change():
    logits = scores(8)
    silent = Sampler(Sampling(), NO_PROMPT)
    sampling = Sampling(temperature=0.1, top_k=1, logit_bias=((2, 90.0),), logprobs=1)
    changed = Sampler(sampling, np.array([1, 2, 3]))
    assert silent.reported(logits, silent.pick(logits)) == ()
    assert changed.pick(logits) == 2
    assert changed.reported(logits, 2) == (score(logits, 2, 1),)
