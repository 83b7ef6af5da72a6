"""OpenAI's JSON: bodies in, objects out."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import BackendError, Prompt, RequestError
from router.models import find
from router.openai import (
    Ask,
    ChatForm,
    Envelope,
    TextForm,
    chat_ask,
    completion_ask,
    failure,
    read,
)
from router.openai.document import MAX_DEPTH, MAX_VALUES
from router.openai.fields import MOST_NAMED
from router.openai.pictures import LOW_PIXELS, Source
from router.pieces import pieces
from router.prompt import PromptBuilder
from router.types import Chunk, Completion, Decision, Picture, Sampling, Stats, TokenScore

PIXEL = "data:image/png;base64,iVBORw0KGgo="
BASE = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def refused(make: Callable[[], object]) -> tuple[str, str | None, str]:
    with pytest.raises(RequestError) as caught:
        make()
    return caught.value.code, caught.value.param, str(caught.value)


BROKEN = {
    "nothing": b"",
    "half": b'{"a":',
    "a list": b"[]",
    "a text": b'"a"',
    "a mark before it": b"\xef\xbb\xbf{}",
    "two objects": b"{}{}",
    "a key twice": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "a key twice, once escaped": b'{"a": 1, "\\u0061": 2}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a number beyond floats": b'{"a": 1e400}',
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "one level too deep": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "far too deep": b"[" * 100_000,
    "too many values": b'{"a": [' + b"1," * MAX_VALUES + b"1]}",
    "too many texts": b'{"a": [' + b'"",' * MAX_VALUES + b'""]}',
    "too many texts of a backslash": b'{"a": [' + rb'"\\",' * MAX_VALUES + b'""]}',
    "a text that does not end": b'{"a": "',
    "a control character": b'{"a": "\n"}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_is_not_plain_json_is_refused(name: str) -> None:
    code, _, message = refused(lambda: read(BROKEN[name]))
    assert code == "invalid_json"
    assert message.startswith("the body cannot be read: ")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"a": "\xff"}', None),
        (rb'{"a": [1, {"b": "x\ud800"}]}', "a[1].b"),
        (rb'{"\udfff": 1}', None),
        (b'{"\xc3\xa9": "\\ud800"}', None),
    ],
)
def test_a_text_that_is_not_unicode_is_refused(body: bytes, param: str | None) -> None:
    code, found, _ = refused(lambda: read(body))
    assert (code, found) == ("invalid_encoding", param)


def test_what_is_unusual_and_right_is_read() -> None:
    deep = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert read(deep)["a"]["a"]
    text = 'nul \0, "quoted", \u202e, {[[[,,, \\ \U0001f600'
    assert read(json.dumps({"a": text}).encode()) == {"a": text}
    assert read(json.dumps({"a": text}, ensure_ascii=False).encode()) == {"a": text}
    quotes = '"' * (2 * MAX_VALUES)
    assert read(json.dumps({"a": quotes}).encode()) == {"a": quotes}
    assert read(b'{"a": 1e300, "b": -12, "c": true, "d": null}') == {
        "a": 1e300,
        "b": -12,
        "c": True,
        "d": None,
    }


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u0a 1e-nt', max_size=60).map(str.encode))
def test_any_body_is_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(read(body), dict)
    except RequestError as error:
        assert error.code in ("invalid_json", "invalid_encoding")  # noqa: PT017


def ask(**fields: object) -> Ask:
    return chat_ask({**BASE, **fields})


def content(*parts: object) -> list[object]:
    return [{"role": "user", "content": list(parts)}]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": 1}, "invalid_type", "model"),
    ({"model": None}, "invalid_type", "model"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": "Hi"}, "invalid_type", "messages"),
    ({"messages": ["Hi"]}, "invalid_type", "messages[0]"),
    ({"messages": [{"content": "Hi"}]}, "missing_parameter", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "missing_parameter", "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "invalid_type", "messages[0].content"),
    ({"messages": [{"role": "root", "content": "Hi"}]}, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "Hi"}]}, "unsupported_parameter", "messages[0].role"),
    ({"messages": content({"type": "input_audio"})}, "invalid_value", "messages[0].content[0]"),
    ({"messages": content({"text": "Hi"})}, "invalid_value", "messages[0].content[0]"),
    ({"messages": content({"type": "text", "text": 1})}, "invalid_type", "messages[0].content[0].text"),
    ({"messages": content({"type": "image_url"})}, "missing_parameter", "messages[0].content[0].image_url"),
    (
        {"messages": content({"type": "image_url", "image_url": {"url": PIXEL, "detail": "big"}})},
        "invalid_value",
        "messages[0].content[0].image_url.detail",
    ),
    ({"temperature": "1"}, "invalid_type", "temperature"),
    ({"temperature": True}, "invalid_type", "temperature"),
    ({"temperature": 2.1}, "invalid_value", "temperature"),
    ({"temperature": 10**390}, "invalid_type", "temperature"),
    ({"top_p": 0}, "invalid_value", "top_p"),
    ({"top_k": -1}, "invalid_value", "top_k"),
    ({"min_p": 1}, "invalid_value", "min_p"),
    ({"presence_penalty": -3}, "invalid_value", "presence_penalty"),
    ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": 7.0}, "invalid_type", "max_tokens"),
    ({"max_tokens": True}, "invalid_type", "max_tokens"),
    ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "invalid_value", "max_tokens"),
    ({"min_tokens": 9, "max_tokens": 8}, "invalid_value", "min_tokens"),
    ({"n": 2}, "invalid_value", "n"),
    ({"n": 0}, "invalid_value", "n"),
    ({"seed": 2**63}, "invalid_value", "seed"),
    ({"seed": "x"}, "invalid_type", "seed"),
    ({"stop": 1}, "invalid_type", "stop"),
    ({"stop": ["a", None]}, "invalid_type", "stop[1]"),
    ({"logit_bias": {"a": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"01": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"1": "a"}}, "invalid_type", "logit_bias.1"),
    ({"logit_bias": {str(i): 1 for i in range(301)}}, "invalid_value", "logit_bias"),
    ({"logprobs": 1}, "invalid_type", "logprobs"),
    ({"top_logprobs": 1}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format"),
    ({"response_format": {"type": "json_schema"}}, "missing_parameter", "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "missing_parameter",
        "response_format.json_schema.schema",
    ),
    ({"mm_processor_kwargs": {"max_pixels": 0.5}}, "invalid_type", "mm_processor_kwargs.max_pixels"),
    ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    ({"tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
    ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    ({"reasoning_effort": "high"}, "unsupported_parameter", "reasoning_effort"),
    ({"chat_template": "{{ x }}"}, "unsupported_parameter", "chat_template"),
    ({"chat_template_kwargs": {"a": 1}}, "unsupported_parameter", "chat_template_kwargs"),
    ({"continue_final_message": True}, "unsupported_parameter", "continue_final_message"),
    ({"skip_special_tokens": False}, "unsupported_parameter", "skip_special_tokens"),
    ({"best_of": True}, "unsupported_parameter", "best_of"),
    ({"guided_regex": "a*"}, "unsupported_parameter", "guided_regex"),
]


@pytest.mark.parametrize(("fields", "code", "param"), WRONG, ids=[str(w[0])[:60] for w in WRONG])
def test_a_wrong_field_is_refused_by_name(fields: dict[str, Any], code: str, param: str) -> None:
    found_code, found_param, message = refused(lambda: ask(**fields))
    assert (found_code, found_param) == (code, param)
    assert len(message) < 300


def test_a_missing_field_is_named() -> None:
    assert refused(lambda: chat_ask({"model": "m"}))[:2] == ("missing_parameter", "messages")
    assert refused(lambda: chat_ask({"messages": BASE["messages"]}))[:2] == ("missing_parameter", "model")


def test_null_asks_for_nothing() -> None:
    body = dict.fromkeys((*ALL_SAMPLING, "stop", "tools", "response_format", "user", "n"))
    assert ask(**body) == ask()


ALL_SAMPLING: dict[str, Any] = {
    "temperature": 1,
    "top_k": 3,
    "top_p": 0.5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"42": -100, "7": 0.5},
    "max_tokens": 9,
    "min_tokens": 2,
    "ignore_eos": True,
    "stop": ["a", "b"],
    "stop_token_ids": [3],
    "seed": -1,
}


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


def test_texts_and_pictures_keep_their_order_and_developers_speak_as_the_system() -> None:
    turns = ask(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Compare"},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                    {"type": "input_text", "text": "with"},
                    {"type": "input_image", "image_url": "https://pictures.test/a.png"},
                    {"type": "image_url", "image_url": "A" * 64},
                ],
            },
            {"role": "assistant", "content": "Done."},
        ]
    ).turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant"]
    where = "messages[1].content"
    assert turns[1].parts == (
        "Compare",
        Source(f"{where}[1]", "iVBORw0KGgo=", None, "low"),
        "with",
        Source(f"{where}[3]", None, "https://pictures.test/a.png"),
        Source(f"{where}[4]", "A" * 64, None),
    )


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/hostname",
        "/etc/hostname",
        "../picture.png",
        "~/picture.png",
        "\\\\host\\share\\a.png",
        "ftp://pictures.test/a.png",
        "picture.png",
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


def test_pictures_in_the_body_are_decoded_strictly_and_their_size_is_checked_first() -> None:
    assert Source("p", "iVBORw0KGgo=", None).decoded(100) == b"\x89PNG\r\n\x1a\n"
    for data in ("iVBORw0KGgo", "iVBO Rw0KGgo=", "iVBORw0KGg==o=", "\xe9AAA"):
        assert refused(lambda data=data: Source("p", data, None).decoded(100))[:2] == ("invalid_image", "p")
    code, _, message = refused(lambda: Source("p", "!" * 400, None).decoded(299))
    assert code == "image_too_large"
    assert "299" in message


def test_pictures_are_read_small_when_all_of_them_ask_for_low_detail() -> None:
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
    said = completion_ask({"model": "m", "prompt": ["Hi"], "logprobs": 2, "max_tokens": 3, "user": "me"})
    assert (said.form, said.turns[0].role, said.turns[0].parts) == ("text", "user", ("Hi",))
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
        found = refused(lambda fields=fields: completion_ask({"model": "m", **fields}))
        assert found[:2] == (code, param)


def test_a_request_is_made_of_what_was_asked() -> None:
    picture = Picture(np.zeros((1, 1, 3), np.uint8))
    asked = ask(
        messages=content({"type": "text", "text": "What?"}, {"type": "image_url", "image_url": PIXEL}),
        response_format={"type": "json_object"},
        mm_processor_kwargs={"max_pixels": 5000},
    )
    seen: list[str] = []

    def look(source: Source) -> Picture:
        seen.append(source.param)
        return picture

    request = asked.request(look, "onnx")
    assert request.messages[0].parts == ("What?", picture)
    assert seen == ["messages[0].content[1]"]
    assert (request.backend, request.max_pixels, request.json_schema) == (
        "onnx",
        5000,
        '{"type": "object"}',
    )


BUILDER = PromptBuilder.read(find().folder)
PIECE = pieces(BUILDER.tokenizer, BUILDER.control_ids)
STATS = Stats("onnx", 30, 12, 3, 0.5, 1.0, 0.5, ((128, 96),))
PROMPT = Prompt(np.arange(30), grid=np.array([[1, 6, 8]]))


def test_the_bytes_of_an_answers_tokens_are_its_text() -> None:
    for text in ("I see red, \xe9\U0001f600\n\t.", "<tool_call>", "\u4f60\u597d", "\x00\x7f\xad"):
        ids = BUILDER.tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(map(PIECE, ids)).decode() == text
    assert [PIECE(token) for token in BUILDER.control_ids] == [b""] * len(BUILDER.control_ids)
    assert PIECE(10**6) == b""


def envelope(**fields: Any) -> Envelope:
    return Envelope(**{"model": "m", "prompt": PROMPT, "piece": PIECE, "id": "1", "created": 7, **fields})


def scored(text: str) -> tuple[tuple[int, ...], tuple[TokenScore, ...]]:
    ids = tuple(BUILDER.tokenizer.encode(text, add_special_tokens=False).ids)
    return ids, tuple(TokenScore(token, -0.5, ((token, -0.5), (ids[0], -1.0))) for token in ids)


def chunks(logprobs: bool = False) -> list[Chunk]:
    end = min(BUILDER.eos)
    parts = [("I", scored("I")), ("", scored(" ")), (" see", scored("see"))]
    sent = [Chunk(text, ids, scores if logprobs else ()) for text, (ids, scores) in parts]
    return [*sent, Chunk(".", (end,), (TokenScore(end, -0.1),) if logprobs else (), "stop", STATS)]


def sent(form: ChatForm | TextForm, of: list[Chunk]) -> list[dict[str, Any]]:
    objects = [*form.opening(), *(found for chunk in of for found in form.chunk(chunk))]
    return [json.loads(found.json_text()) for found in objects]


SAME = {"id": "chatcmpl-1", "created": 7, "model": "m", "object": "chat.completion.chunk"}
TIMINGS = {
    "cache_n": 0,
    "prompt_n": 30,
    "prompt_ms": 1000.0,
    "prompt_per_second": 30.0,
    "predicted_n": 3,
    "predicted_ms": 500.0,
    "predicted_per_second": 4.0,
    "vision_ms": 500.0,
    "image_tokens": 12,
    "image_grid_thw": [[1, 6, 8]],
    "resized_to": [[128, 96]],
}
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 3,
    "total_tokens": 33,
    "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 12},
    "completion_tokens_details": {},
}


def choice(delta: dict[str, str], finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


def test_a_streamed_chat_is_sent_chunk_by_chunk() -> None:
    assert sent(ChatForm(envelope()), chunks()) == [
        {**SAME, "choices": choice({"role": "assistant", "content": ""})},
        {**SAME, "choices": choice({"content": "I"})},
        {**SAME, "choices": choice({"content": " see"})},
        {**SAME, "choices": choice({"content": "."})},
        {**SAME, "choices": choice({}, "stop"), "timings": TIMINGS},
    ]


def test_usage_is_null_until_the_last_chunk_which_has_no_choice() -> None:
    plain = sent(ChatForm(envelope()), chunks())
    asked = sent(ChatForm(envelope(include_usage=True)), chunks())
    assert asked[:-1] == [{**chunk, "usage": None} for chunk in plain]
    assert asked[-1] == {**SAME, "choices": [], "usage": USAGE}


def test_log_probabilities_come_with_their_chunk_and_without_the_end() -> None:
    found = sent(ChatForm(envelope()), chunks(logprobs=True))
    scores = [
        score for chunk in found for score in (chunk["choices"][0]["logprobs"] or {}).get("content", ())
    ]
    assert [score["token"] for score in scores] == ["I", " ", "see"]
    assert scores[2] == {
        "token": "see",
        "logprob": -0.5,
        "bytes": list(b"see"),
        "top_logprobs": [
            {"token": "see", "logprob": -0.5, "bytes": list(b"see")},
            {"token": "see", "logprob": -1.0, "bytes": list(b"see")},
        ],
    }
    assert [chunk["choices"][0]["delta"].get("content") for chunk in found] == [
        "",
        "I",
        "",
        " see",
        ".",
        None,
    ]


def test_the_routing_is_told_to_whom_asks() -> None:
    decision = Decision("onnx", "text only", ("torch",))
    last = sent(ChatForm(envelope(routing=decision)), chunks())[-1]
    assert last["hybrid"] == {"backend": "onnx", "reason": "text only", "fallbacks": ["torch"]}


def completion(logprobs: bool = False) -> Completion:
    made = chunks(logprobs)
    scores = tuple(score for chunk in made for score in chunk.logprobs)
    return Completion("I see.", (), scores, "length", STATS, Decision("onnx", "text only"))


def test_a_whole_chat_has_every_field_that_clients_need() -> None:
    found = json.loads(ChatForm(envelope()).whole(completion()).json_text())
    assert found == {
        **SAME,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "I see.", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": USAGE,
        "timings": TIMINGS,
    }


def test_older_completions_have_their_own_chunks_and_log_probabilities() -> None:
    found = sent(TextForm(envelope(include_usage=True)), chunks(logprobs=True))
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    texts = [chunk["choices"][0]["text"] for chunk in found[:-1]]
    assert texts == ["I", "", " see", "."]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[:-1]] == [None, None, None, "stop"]
    assert (found[-1]["choices"], found[-1]["usage"]) == ([], USAGE)
    whole = json.loads(TextForm(envelope()).whole(completion(logprobs=True)).json_text())
    assert whole["id"] == "cmpl-1"
    assert whole["choices"][0]["text"] == "I see."
    assert whole["choices"][0]["logprobs"] == {
        "tokens": ["I", " ", "see"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{"I": -1.0}, {" ": -1.0}, {"see": -1.0}],
        "text_offset": [0, 1, 2],
    }


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry"),
    [
        (RequestError("no", code="invalid_image", param="messages[0]"), 400, "invalid_request_error", None),
        (RequestError("no", code="model_not_found"), 404, "invalid_request_error", None),
        (RequestError("no", code="body_too_large"), 413, "invalid_request_error", None),
        (RequestError("no", code="queue_full"), 429, "rate_limit_error", None),
        (BackendError("no", code="loading"), 503, "unavailable_error", None),
        (BackendError("no", code="timeout"), 504, "timeout_error", "false"),
        (BackendError("no", code="numerical_error"), 500, "server_error", "false"),
        (ValueError("no"), 500, "server_error", "false"),
    ],
)
def test_a_failure_has_a_status_and_all_four_fields(
    error: Exception, status: int, kind: str, retry: str | None
) -> None:
    found = failure(error)
    body = json.loads(found.body.json_text())["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert (found.status, body["type"], found.headers.get("x-should-retry")) == (status, kind, retry)
    assert body["code"] is None or isinstance(body["code"], str)


def test_the_set_ups_faults_are_told_in_fixed_words() -> None:
    for error in (
        BackendError("/home/someone/model.onnx is damaged", code="model_invalid"),
        BackendError("/home/someone: 0x7f00", code="backend_error"),
        RuntimeError("/home/someone"),
    ):
        told = failure(error).body.error.message
        assert "someone" not in told
        assert "log" in told


def test_fields_are_named_as_this_servers_clients_know_them() -> None:
    assert failure(RequestError("no", param="json_schema")).body.error.param == "response_format"
    assert failure(RequestError("no", param="messages[1]")).body.error.param == "messages[1]"
