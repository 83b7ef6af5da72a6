"""Prompts of a benchmark: exactly as long as wanted, and new from their first word on."""

import numpy as np
import pytest

from backends.base import RequestError
from backends.qwen3vl import patches
from router.bench.workloads import QUESTION_WORDS, Size, Workload, Writer, check_room
from router.models import find
from router.prompt import PromptBuilder
from router.types import Picture
from tests.bench.benches import FOLLOW_UP, IMAGE, LONG, TEXT


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    return PromptBuilder.read(find().folder)


@pytest.mark.parametrize("tokens", [24, 128, 512, 3000])
def test_a_text_is_as_long_as_it_is_to_be(builder: PromptBuilder, tokens: int) -> None:
    writer = Writer(builder)
    for _ in range(3):
        (conversation,) = writer.job(Workload(8, prompt_tokens=tokens)).conversations
        assert len(builder.plan(conversation).ids) == tokens


def test_no_prompt_begins_like_another(builder: PromptBuilder) -> None:
    writer = Writer(builder)
    begins = {writer.job(TEXT).conversations[0][0].parts[0][:60] for _ in range(50)}
    assert len(begins) == 50
    # nor does that of another run
    assert Writer(builder).job(TEXT).conversations[0][0].parts[0][:60] not in begins
    same = [Writer(builder, seed=7).job(TEXT).conversations[0][0].parts for _ in range(2)]
    assert same[0] == same[1]


def test_no_image_becomes_the_patches_of_another(builder: PromptBuilder) -> None:
    writer = Writer(builder)
    large = Workload(8, images=2, size=Size(448, 336))
    (first,) = writer.job(large).conversations[0]
    (second,) = writer.job(large).conversations[0]
    seen = [part for message in (first, second) for part in message.parts if isinstance(part, Picture)]
    assert [image.size for image in seen] == [(448, 336)] * 4
    read = [patches(image.pixels, builder.limits)[0] for image in seen]  # at a fraction of the size
    differences = [np.abs(a - b).mean() for i, a in enumerate(read) for b in read[:i]]
    assert min(differences) > 0.1
    assert len(str(first.parts[-1]).split()) == QUESTION_WORDS


def test_streams_and_follow_ups(builder: PromptBuilder) -> None:
    writer = Writer(builder)
    crowd = writer.job(Workload(8, prompt_tokens=64, streams=3))
    assert len({conversation[0].parts for conversation in crowd.conversations}) == 3
    assert crowd.question is None
    follow_up = Writer(builder).job(FOLLOW_UP)
    assert follow_up.question is not None
    assert len(follow_up.question.split()) == QUESTION_WORDS
    lengths = {len(builder.plan(writer.job(IMAGE).conversations[0]).ids) for _ in range(10)}
    assert len(lengths) == 1


def test_a_prompt_shorter_than_the_template_is_refused(builder: PromptBuilder) -> None:
    with pytest.raises(RequestError, match="no prompt of 4 tokens can be written") as caught:
        Writer(builder).job(Workload(8, prompt_tokens=4))
    least = int(str(caught.value).rpartition(" ")[2])
    assert (
        len(builder.plan(Writer(builder).job(Workload(8, prompt_tokens=least)).conversations[0]).ids) == least
    )


def test_without_a_tokenizer_a_word_counts_as_a_token() -> None:
    (message,) = Writer(None).job(TEXT).conversations[0]
    assert len(str(message.parts[0]).split()) == TEXT.prompt_tokens


def test_what_does_not_fit_into_the_context_is_refused_before_anything_is_loaded() -> None:
    check_room((TEXT, LONG, IMAGE), 517)
    with pytest.raises(RequestError, match="'text 512' and 5 tokens of answer are 517 tokens") as caught:
        check_room((TEXT, LONG), 516)
    assert caught.value.code == "context_length_exceeded"
