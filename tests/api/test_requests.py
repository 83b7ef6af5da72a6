"""OpenAI's bodies: what they ask for, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.load.wrong_bodies import PIXEL, WRONG, content
from router.api.chat import read_chat
from router.api.completions import read_completion
from router.api.messages import ImageSource
from router.api.parse import MOST_NAMED
from router.api.request import LOW_PIXELS
from router.types import Picture, Sampling
from tests.api.parsing import ALL_SAMPLING, BASE, ask, refused


@pytest.mark.parametrize(("fields", "code", "param"), WRONG, ids=[str(w[0])[:60] for w in WRONG])
def test_a_wrong_field_is_refused_by_name(fields: dict[str, Any], code: str, param: str) -> None:
    found_code, found_param, message = refused(lambda: ask(**fields))
    assert (found_code, found_param) == (code, param)
    assert len(message) < 300


def test_a_missing_field_is_named() -> None:
    assert refused(lambda: read_chat({"model": "m"}))[:2] == ("missing_parameter", "messages")
    assert refused(lambda: read_chat({"messages": BASE["messages"]}))[:2] == ("missing_parameter", "model")


def test_null_asks_for_nothing() -> None:
    body = dict.fromkeys((*ALL_SAMPLING, "stop", "tools", "response_format", "user", "n"))
    assert ask(**body) == ask()


def test_every_sampling_field_arrives() -> None:
    said = ask(**ALL_SAMPLING, logprobs=True, top_logprobs=2).sampling
    expected = {
        **ALL_SAMPLING,
        "logit_bias": ((42, -100.0), (7, 0.5)),
        "stop": ("a", "b"),
        "stop_token_ids": (3,),
        "logprobs": 2,
    }
    assert said == Sampling(**expected)
    assert ask(stop="a", max_completion_tokens=4, logprobs=True).sampling == Sampling(
        stop=("a",), max_tokens=4, logprobs=0
    )


def test_texts_and_images_keep_their_order_and_developers_speak_as_the_system() -> None:
    messages = ask(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Compare"},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                    {"type": "input_text", "text": "with"},
                    {"type": "input_image", "image_url": "https://images.test/a.png"},
                    {"type": "image_url", "image_url": "A" * 64},
                ],
            },
            {"role": "assistant", "content": "Done."},
        ]
    ).messages
    assert [message.role for message in messages] == ["system", "user", "assistant"]
    where = "messages[1].content"
    assert messages[1].parts == (
        "Compare",
        ImageSource(f"{where}[1]", "iVBORw0KGgo=", None, "low"),
        "with",
        ImageSource(f"{where}[3]", None, "https://images.test/a.png"),
        ImageSource(f"{where}[4]", "A" * 64, None),
    )


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/hostname",
        "/etc/hostname",
        "../image.png",
        "~/image.png",
        "\\\\host\\share\\a.png",
        "ftp://images.test/a.png",
        "image.png",
        "",
        "data:text/html;base64,PGh0bWw+",
        "data:image/png,abc",
        "data:;base64,AAAA",
        "gopher://x",
        "A" * 59,
    ],
)
def test_an_address_that_is_not_data_or_the_web_is_refused(address: str) -> None:
    code, param, message = refused(
        lambda: ask(messages=content({"type": "image_url", "image_url": {"url": address}}))
    )
    assert (code, param) == ("unsupported_image_url", "messages[0].content[0]")
    assert "data URI" in message


def test_images_in_the_body_are_decoded_strictly_and_their_size_is_checked_first() -> None:
    assert ImageSource("p", "iVBORw0KGgo=", None).decoded(100) == b"\x89PNG\r\n\x1a\n"
    for data in ("iVBORw0KGgo", "iVBO Rw0KGgo=", "iVBORw0KGg==o=", "\xe9AAA"):
        assert refused(lambda data=data: ImageSource("p", data, None).decoded(100))[:2] == (
            "invalid_image",
            "p",
        )
    code, _, message = refused(lambda: ImageSource("p", "!" * 400, None).decoded(299))
    assert code == "image_too_large"
    assert "299" in message


def test_images_are_read_small_when_all_of_them_ask_for_low_detail() -> None:
    def pixels(*details: str, **fields: object) -> int | None:
        parts = [{"type": "image_url", "image_url": {"url": PIXEL, "detail": d}} for d in details]
        return ask(messages=content(*parts), **fields).max_pixels

    assert pixels("low", "low") == LOW_PIXELS
    assert pixels("low", "high") is pixels("auto") is pixels("high") is pixels() is None
    assert pixels("low", mm_processor_kwargs={"max_pixels": 5000}) == 5000
    assert ask(mm_processor_kwargs={"min_pixels": 70}).min_pixels == 70


def test_the_form_of_the_answer_is_a_json_schema() -> None:
    schema = {"type": "object", "properties": {"\xe9": {"type": "string"}}}
    assert ask(response_format={"type": "text"}).json_schema is None
    assert json.loads(ask(response_format={"type": "json_object"}).json_schema or "") == {"type": "object"}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert json.loads(ask(response_format=asked).json_schema or "") == schema


def test_fields_that_are_not_read_are_named_once_and_safely() -> None:
    said = ask(
        user="me",
        metadata={"a": "b"},
        store=False,
        **{"x\r\nevil: 1": 1, "\xe9": 2, "": 3, " ": 4},
        messages=[
            {"role": "user", "name": "bob", "content": "Hi"},
            {"role": "user", "name": "eve", "content": [{"type": "text", "text": "Hi", "cache": 1}]},
        ],
        tools=[],
    )
    assert said.ignored == (
        "user",
        "metadata",
        "store",
        "x??evil??1",
        "?",
        "messages.name",
        "messages.content.cache",
    )
    many = ask(**{f"field{i}": 1 for i in range(100)}).ignored
    assert len(many) == MOST_NAMED + 1
    assert many[-1] == "..."


def test_an_older_completion_is_one_message_of_the_user() -> None:
    said = read_completion({"model": "m", "prompt": ["Hi"], "logprobs": 2, "max_tokens": 3, "user": "me"})
    assert (said.messages[0].role, said.messages[0].parts) == ("user", ("Hi",))
    assert said.sampling == Sampling(max_tokens=3, logprobs=2)
    assert said.ignored == ("user",)
    for fields, code, param in (
        ({"prompt": ["a", "b"]}, "invalid_value", "prompt"),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [1, 2]}, "invalid_type", "prompt[0]"),
        ({"echo": True}, "unsupported_parameter", "echo"),
        ({"suffix": "x"}, "unsupported_parameter", "suffix"),
        ({"prompt": "a", "logprobs": 21}, "invalid_value", "logprobs"),
        ({}, "missing_parameter", "prompt"),
    ):
        found = refused(lambda fields=fields: read_completion({"model": "m", **fields}))
        assert found[:2] == (code, param)


def test_a_request_is_made_of_what_was_asked() -> None:
    image = Picture(np.zeros((1, 1, 3), np.uint8))
    asked = ask(
        messages=content({"type": "text", "text": "What?"}, {"type": "image_url", "image_url": PIXEL}),
        response_format={"type": "json_object"},
        mm_processor_kwargs={"max_pixels": 5000},
    )
    seen: list[str] = []

    def look(source: ImageSource) -> Picture:
        seen.append(source.param)
        return image

    request = asked.request(look, "onnx")
    assert request.messages[0].parts == ("What?", image)
    assert seen == ["messages[0].content[1]"]
    assert (request.backend, request.max_pixels, request.json_schema) == (
        "onnx",
        5000,
        '{"type": "object"}',
    )
