"""Which kept cache a prompt goes on from."""

from collections.abc import Sequence

import numpy as np
import pytest

from backends.base import Prompt
from backends.prefix_cache import TAIL, WORTH, CachedPrefix, PrefixCache

PAD = 7


def prompt(before: int = 20, pixel: float = 0.0, shape: tuple[int, int] = (4, 4), after: int = 20) -> Prompt:
    """Text, an image of one colour, and text."""
    rows, columns = shape
    pads = rows * columns // 4
    ids = np.concatenate([np.arange(100, 100 + before), np.full(pads, PAD), np.arange(200, 200 + after)])
    return Prompt(
        ids,
        np.full((rows * columns, 1536), pixel, np.float32),
        np.array([[1, rows, columns]]),
        np.array([[before, before + pads]]),
    )


def text(*ids: int) -> CachedPrefix:
    return CachedPrefix(np.array(ids, np.int64))


def count(first: int, tokens: int) -> list[int]:
    return list(range(first, first + tokens))


def test_texts_have_in_common_what_they_begin_with() -> None:
    assert text(1, 2, 3).common(text(1, 2, 4, 5)) == 2
    assert text(1, 2, 3).common(text(1, 2, 3, 4)) == 3
    assert text(1).common(text(2)) == 0
    assert text().common(text(1)) == 0


def test_the_same_image_is_common_and_what_follows_it_too() -> None:
    one, other = CachedPrefix.of(prompt(after=5)), CachedPrefix.of(prompt(after=9))
    assert one.common(other) == 29


@pytest.mark.parametrize("other", [prompt(pixel=1.0), prompt(shape=(2, 8))], ids=["colour", "shape"])
def test_another_image_ends_what_is_common_though_its_ids_are_the_same(other: Prompt) -> None:
    assert np.array_equal(prompt().ids, other.ids)
    assert CachedPrefix.of(prompt()).common(CachedPrefix.of(other)) == 20


def test_an_image_is_common_as_a_whole_or_not_at_all() -> None:
    whole = CachedPrefix.of(prompt())
    assert whole.common(CachedPrefix.of(prompt(before=20, shape=(4, 8)))) == 20
    assert [whole.common(whole.first(tokens)) for tokens in (19, 20, 21, 23, 24, 25)] == [
        19,
        20,
        20,
        20,
        24,
        25,
    ]


def test_text_that_has_the_ids_of_an_image_is_no_image() -> None:
    imaged = CachedPrefix.of(prompt())
    assert imaged.common(CachedPrefix(imaged.ids)) == 20


def pool(*held: Sequence[int], kept: int = 8, kept_bytes: int = 1000) -> PrefixCache[str]:
    made: PrefixCache[str] = PrefixCache(kept_bytes, kept)
    for number, ids in enumerate(held):
        made.give(text(*ids), f"cache {number}", 100)
    return made


def test_a_follow_up_gets_the_cache_of_its_conversation_and_takes_it_away() -> None:
    kept = pool(count(0, 50), count(500, 50))
    assert kept.take(text(*count(0, 80))) == ("cache 0", 50)
    assert len(kept) == 1
    assert kept.take(text(*count(0, 80))) is None


def test_the_last_tokens_of_a_prompt_are_always_read_anew() -> None:
    kept = pool(count(0, 50))
    assert kept.take(text(*count(0, 50))) == ("cache 0", 50 - TAIL)


def test_an_image_at_the_end_of_a_prompt_is_read_anew_as_a_whole() -> None:
    kept: PrefixCache[str] = PrefixCache()
    late = prompt(after=5)
    kept.give(CachedPrefix.of(late), "cache", 1)
    assert late.spans is not None
    assert late.spans[0, 0] < len(late.ids) - TAIL < late.spans[0, 1], "the tail begins inside the image"
    assert kept.take(CachedPrefix.of(late)) == ("cache", 20)


def test_the_longest_common_beginning_wins() -> None:
    kept = pool(count(0, 30), count(0, 60), count(0, 40))
    assert kept.take(text(*count(0, 80))) == ("cache 1", 60)


def test_a_short_common_beginning_is_not_worth_it() -> None:
    kept = pool(count(0, WORTH - 1))
    assert kept.take(text(*count(0, 80))) is None
    assert len(kept) == 1


def test_a_cache_that_would_lose_most_stays_and_is_copied_from() -> None:
    kept = pool([*count(0, 20), *count(900, 100)])
    asked = text(*count(0, 80))
    assert kept.take(asked) is None
    assert kept.take(asked, copy=lambda cache, tokens: f"{tokens} of {cache}") == ("20 of cache 0", 20)
    assert len(kept) == 1


def test_a_cache_that_is_too_small_is_left_or_copied_and_dropped() -> None:
    kept = pool(count(0, 50))
    asked = text(*count(0, 80))
    assert kept.take(asked, fits=lambda _: False) is None
    assert len(kept) == 1
    found = kept.take(asked, fits=lambda _: False, copy=lambda cache, tokens: f"{tokens} of {cache}")
    assert found == ("50 of cache 0", 50)
    assert len(kept) == 0


def test_what_was_used_last_stays_when_there_are_too_many() -> None:
    kept = pool(count(0, 30), count(100, 30), count(200, 30), kept=2)
    assert len(kept) == 2
    assert kept.take(text(*count(0, 60))) is None
    assert kept.take(text(*count(100, 60))) is not None


def test_what_was_used_last_stays_when_it_is_too_much() -> None:
    kept = pool(count(0, 30), count(100, 30), kept_bytes=150)
    assert len(kept) == 1
    assert kept.take(text(*count(100, 60))) is not None
    assert len(pool(count(0, 30), kept_bytes=0)) == 0
