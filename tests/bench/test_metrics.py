"""The figures of a benchmark against values worked out by hand."""

import pytest

from router.bench.engine import Measurement
from router.bench.metrics import METRICS, Spread, measured
from tests.bench.benches import SAMPLE, SEEN, TEXT, report, row_of, turn

BY_NAME = {metric.name: metric for metric in METRICS}


def median(name: str, *turns: Measurement) -> float:
    spread = BY_NAME[name].spread(turns)
    assert spread is not None
    return spread.median


def test_a_spread_is_the_median_the_lowest_and_the_highest() -> None:
    assert Spread.of([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0, 3)
    assert Spread.of([4.0, 1.0, 3.0, 8.0]) == Spread(3.5, 1.0, 8.0, 4)


def test_the_formulas_of_a_text() -> None:
    assert median("prefill_tokens_per_second", turn()) == pytest.approx(128 / 0.64)
    assert median("ttft_ms", turn()) == pytest.approx(700)
    assert median("tpot_ms", turn()) == pytest.approx(200)  # four tokens after the first in 0.8 s
    assert median("decode_tokens_per_second", turn()) == pytest.approx(5)
    assert median("total_seconds", turn()) == pytest.approx(1.6)
    assert median("peak_megabytes", turn()) == pytest.approx(500)
    assert median("output_tokens", turn()) == 5
    assert BY_NAME["itl_ms"].spread([turn()]) == Spread(200, 100, 300, 4)
    assert {"vision_ms", "preprocess_ms", "patches", "all_streams_tokens_per_second"}.isdisjoint(
        measured([turn()])
    )


def test_the_formulas_of_images() -> None:
    assert median("vision_patches_per_second", turn(SEEN)) == pytest.approx(1600)
    assert median("vision_ms", turn(SEEN)) == pytest.approx(500)
    assert median("preprocess_ms", turn(SEEN)) == pytest.approx(10)
    assert median("prefill_tokens_per_second", turn(SEEN)) == pytest.approx(164 / (0.9 - 0.5))


def test_what_was_cached_is_not_counted_as_read() -> None:
    cached = turn(cached_tokens=96, prefill_seconds=0.16)
    assert median("prefill_tokens_per_second", cached) == pytest.approx((128 - 96) / 0.16)


def test_a_server_s_prompt_is_counted_over_its_time_to_first_token() -> None:
    assert median("prefill_tokens_per_second", turn(prefill_seconds=None)) == pytest.approx(128 / 0.7)


def test_streams_have_a_speed_each_and_one_together() -> None:
    both = Measurement((SAMPLE, SAMPLE), 2.0)
    assert median("all_streams_tokens_per_second", both) == pytest.approx(10 / 2.0)
    spread = BY_NAME["decode_tokens_per_second"].spread([both])
    assert spread == Spread(pytest.approx(5), pytest.approx(5), pytest.approx(5), 2)
    assert "peak_megabytes" not in measured([both])


def test_one_token_has_no_decode_speed() -> None:
    alone = turn(output_tokens=1, decode_seconds=0.0, gaps=())
    assert {"tpot_ms", "decode_tokens_per_second", "itl_ms"}.isdisjoint(measured([alone]))
    assert "ttft_ms" in measured([alone])


def test_a_row_is_the_median_of_its_repeats_without_those_to_warm_up() -> None:
    found = row_of(report(), "torch", TEXT).measured
    assert found["ttft_ms"] == Spread(pytest.approx(2800), pytest.approx(2100), pytest.approx(3500), 3)
    assert found["tpot_ms"].median == pytest.approx(800)
    assert found["decode_tokens_per_second"].median == pytest.approx(1.25)
