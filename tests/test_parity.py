"""How two backends are compared, on scores made up here."""

import numpy as np
import pytest

from backends.base import Prompt
from backends.scripted import Script, ScriptedBackend
from router.parity import BARS, STEPS, Bars, ParityReport, Trace, compare, trace

RANDOM = np.random.default_rng(0)
PROMPT = Prompt(np.array([1, 2, 3]))


def made(features: int = 2, steps: int = 6, vocab: int = 50) -> Trace:
    return Trace(
        [RANDOM.normal(size=(4, 8)).astype(np.float32) for _ in range(features)],
        RANDOM.normal(size=(steps, vocab)).astype(np.float32),
        tuple(range(steps - 1)),
    )


def with_scores(trace_: Trace, scores: np.ndarray) -> Trace:
    return Trace(trace_.features, scores.astype(np.float32), trace_.tokens)


def test_the_same_is_no_distance_away() -> None:
    one = [made(), made(features=0)]
    report = compare(one, one)
    assert [distance.stage for distance in report.distances] == [
        "image features",
        "DeepStack feature 0",
        "prefill scores",
    ]
    assert all(distance.cosine == pytest.approx(1) for distance in report.distances)
    assert all(distance.worst_row == pytest.approx(1) for distance in report.distances)
    assert all(distance.relative_error == 0 for distance in report.distances)
    assert (report.top1, report.divergence, report.agreeing, report.steps) == (1, 0, (6, 6), 12)
    assert BARS["fp32"].failures(report) == []


def test_the_first_different_choice_ends_the_agreement() -> None:
    one = made()
    scores = one.scores.copy()
    scores[2, scores[2].argmin()] = 100
    report = compare([one], [with_scores(one, scores)])
    assert report.agreeing == (2,)
    assert report.top1 == pytest.approx(5 / 6)


def test_the_divergence_is_that_of_the_two_distributions() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    one, two = Trace([], np.log(p).astype(np.float32), ()), Trace([], np.log(q).astype(np.float32), ())
    expected = float((p * np.log(p / q)).sum())
    assert compare([one], [two]).divergence == pytest.approx(expected, rel=1e-6)
    assert expected > 0.1


def test_a_constant_added_to_all_scores_changes_nothing_that_matters() -> None:
    one = made()
    report = compare([one], [with_scores(one, one.scores + 3)])
    assert report.divergence == pytest.approx(0, abs=1e-6)
    assert report.top1 == 1


def test_a_turned_row_shows_in_the_cosine_and_in_the_worst_row() -> None:
    one = made(features=1)
    turned = one.features[0].copy()
    turned[3] *= -1
    found = compare([one], [Trace([turned], one.scores, one.tokens)]).distances[0]
    squares = (one.features[0].astype(float) ** 2).sum(1)
    assert found.worst_row == pytest.approx(-1)
    assert found.cosine == pytest.approx((squares[:3].sum() - squares[3]) / squares.sum())
    assert found.relative_error == pytest.approx(np.sqrt(4 * squares[3] / squares.sum()))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_a_number_fails_every_bar(broken: float) -> None:
    one = made(features=0)
    scores = one.scores.copy()
    scores[0, 0] = broken
    with np.errstate(invalid="ignore"):
        report = compare([one], [with_scores(one, scores)])
    assert BARS["int4"].failures(report)


def test_a_bar_that_is_missed_is_said_in_words() -> None:
    report = ParityReport((), top1=0.5, divergence=1.0, agreeing=(0,), steps=2)
    assert Bars(cosine=0, top1=0.9, divergence=0.1).failures(report) == [
        "top-1 agreement 50.0%, at least 90.0% wanted",
        "KL divergence 1, at most 0.1 wanted",
    ]


def test_the_other_backend_reads_the_reference_s_answer() -> None:
    first = ScriptedBackend(Script((5, 6, 7)), vocab=10)
    second = ScriptedBackend(Script((5, 6, 8)), vocab=10)
    reference = list(trace(first, [PROMPT]))
    other = list(trace(second, [PROMPT], [found.tokens for found in reference]))
    assert reference[0].tokens == other[0].tokens == (5, 6, *(7,) * (STEPS - 3))
    report = compare(reference, other)
    assert report.agreeing == (2,)
    assert first.open_sessions == second.open_sessions == 0


def test_one_prompt_gone_wrong_is_not_hidden_by_those_that_are_right() -> None:
    right, wrong = made(features=0), made(features=0)
    far = with_scores(wrong, RANDOM.normal(size=wrong.scores.shape))
    alone = compare([wrong], [far]).divergence
    assert compare([right, right, wrong], [right, right, far]).divergence == pytest.approx(alone)
    assert alone > 0.1
