"""/set: every setting by name, checked at once."""

from dataclasses import fields, replace

import numpy as np
import pytest

from backends.base import RequestError
from router.cli.chat.settings import NAMES, Defaults, changed, setting_lines, token_cost
from router.models import find
from router.types import Picture, Request, Sampling

DEFAULTS = Defaults.read(find().folder)
START = Request(())


def set_all(*assignments: str, start: Request = START) -> Request:
    for assignment in assignments:
        start = changed(start, assignment, DEFAULTS, scores=True)
    return start


VALUES = {
    "temperature": ("0.7", 0.7),
    "top_k": ("20", 20),
    "top_p": ("0.9", 0.9),
    "min_p": ("0.05", 0.05),
    "repetition_penalty": ("1.1", 1.1),
    "presence_penalty": ("-1", -1),
    "frequency_penalty": ("0.5", 0.5),
    "logit_bias": ("42=-5,43=1.5", ((42, -5), (43, 1.5))),
    "max_tokens": ("10", 10),
    "min_tokens": ("2", 2),
    "ignore_eos": ("true", True),
    "stop": ("END of it", ("END of it",)),
    "stop_token_ids": ("1, 2", (1, 2)),
    "seed": ("-7", -7),
    "logprobs": ("2", 2),
    "min_pixels": ("10000", 10000),
    "max_pixels": ("20000", 20000),
}


def test_every_field_has_a_value_here_to_be_tried() -> None:
    assert (
        set(VALUES) == set(NAMES) == {field.name for field in fields(Sampling)} | {"min_pixels", "max_pixels"}
    )


@pytest.mark.parametrize("name", VALUES)
def test_every_setting_is_set_by_name_and_unset_again(name: str) -> None:
    text, value = VALUES[name]
    start = Request((), Sampling(temperature=1.0), min_pixels=None)
    settings = set_all(f"{name.replace('_', '-')} = {text}", start=start)
    assert getattr(settings if name.endswith("_pixels") else settings.sampling, name) == value
    unset = set_all(f"{name}=", start=settings)
    assert getattr(unset if name.endswith("_pixels") else unset.sampling, name) is None


@pytest.mark.parametrize("name", VALUES)
def test_what_is_listed_can_be_set_again(name: str) -> None:
    text, _ = VALUES[name]
    start = Request((), Sampling(temperature=1.0))
    settings = set_all(f"{name}={text}", start=start)
    (line,) = [line for line in setting_lines(settings, DEFAULTS) if line.split()[0] == name]
    assert line.endswith("  (set here)")
    again = set_all(f"{name}={line.split(maxsplit=1)[1].removesuffix('  (set here)')}", start=start)
    assert again.sampling == settings.sampling
    assert (again.min_pixels, again.max_pixels) == (settings.min_pixels, settings.max_pixels)


def test_what_is_not_set_is_listed_as_the_model_has_it() -> None:
    lines = [line.split() for line in setting_lines(START, DEFAULTS)]
    assert [line[0] for line in lines] == list(NAMES)
    assert ["max_tokens", "64"] in lines  # of the embedded model's generation_config.json
    assert not any("set" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "stops"), [('"\\n"', ("\n",)), ('["a", "b"]', ("a", "b")), ("a b", ("a b",)), ("[x", None)]
)
def test_stop_takes_a_text_or_json(text: str, stops: tuple[str, ...] | None) -> None:
    if stops is None:
        with pytest.raises(RequestError, match="stop wants"):
            set_all(f"stop={text}")
    else:
        assert set_all(f"stop={text}").sampling.stop == stops


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("temperature", "/set wants NAME=VALUE"),
        ("temp=1", "no setting is named 'temp'; choose one of temperature, top_k"),
        ("temperature=hot", "temperature must be a number from 0 to 2, got 'hot'"),
        ("temperature=3", "temperature must be"),
        ("temperature=nan", "temperature must be"),
        ("top_k=0.5", "top_k must be a whole number"),
        ("max_tokens=0", "max_tokens must be a whole number of at least 1"),
        ("min_tokens=65", "min_tokens must be at most max_tokens (64)"),
        ("ignore_eos=maybe", "ignore_eos must be true or false"),
        ("stop=" + "x" * 257, "stop must be"),
        ("stop=[1]", "stop must be"),
        ("stop_token_ids=x", "stop_token_ids must be"),
        ("stop_token_ids=99999999", "stop_token_ids must be"),
        ("logit_bias=42", "logit_bias must be"),
        ("logit_bias=42=-500", "logit_bias must be"),
        ("logit_bias=1=1,1=2", "logit_bias must name every token id once"),
        ("max_pixels=many", "max_pixels must be a whole number of at least 1, got 'many'"),
        ("max_pixels=0", "max_pixels must be a whole number"),
        ("min_pixels=1000000", "min_pixels must be above 0 and at most 25600"),
        ("top_p=0.9", "top_p does nothing at temperature 0"),
        ("messages=x", "no setting is named 'messages'"),
    ],
)
def test_what_cannot_be_set_is_refused_in_words(assignment: str, words: str) -> None:
    with pytest.raises(RequestError) as raised:
        set_all(assignment)
    assert words in str(raised.value)


def test_a_filter_must_go_before_the_temperature_does() -> None:
    settings = set_all("temperature=0.7", "top_p=0.9")
    with pytest.raises(RequestError, match="/set top_p="):
        set_all("temperature=", start=settings)
    assert set_all("top_p=", "temperature=", start=settings).sampling == Sampling()


def test_scores_that_nobody_would_see_are_refused() -> None:
    with pytest.raises(RequestError, match="--json"):
        changed(START, "logprobs=2", DEFAULTS, scores=False)
    assert changed(START, "logprobs=", DEFAULTS, scores=False).sampling == Sampling()


def test_an_image_costs_a_token_for_every_32_by_32_pixels_as_it_is_read() -> None:
    image = Picture(np.zeros((160, 320, 3), np.uint8))
    assert token_cost(image, replace(START, max_pixels=1_000_000), DEFAULTS) == 5 * 10
    assert token_cost(image, replace(START, max_pixels=160 * 160), DEFAULTS) == 3 * 7
