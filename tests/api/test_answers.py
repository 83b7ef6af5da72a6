"""OpenAI's objects: answers, chunks and errors."""

import json
from typing import Any

import numpy as np
import pytest

from backends.base import BackendError, Prompt, RequestError
from router.api.chat import ChatWriter
from router.api.completions import CompletionWriter
from router.api.dialect import ResponseWriter
from router.api.errors import openai_error
from router.api.request import ParsedRequest
from router.api.response import Envelope
from router.detokenize import pieces
from router.models import find
from router.prompt import PromptBuilder
from router.types import Chunk, Completion, Decision, Sampling, Stats, TokenScore

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


def envelope(include_usage: bool = False, **fields: Any) -> Envelope:
    request = ParsedRequest("m", (), Sampling(), include_usage=include_usage)
    return Envelope("m", PROMPT, PIECE, request, **{"id": "1", "created": 7, **fields})


def scored(text: str) -> tuple[tuple[int, ...], tuple[TokenScore, ...]]:
    ids = tuple(BUILDER.tokenizer.encode(text, add_special_tokens=False).ids)
    return ids, tuple(TokenScore(token, -0.5, ((token, -0.5), (ids[0], -1.0))) for token in ids)


def chunks(logprobs: bool = False) -> list[Chunk]:
    end = min(BUILDER.eos)
    parts = [("I", scored("I")), ("", scored(" ")), (" see", scored("see"))]
    sent = [Chunk(text, ids, scores if logprobs else ()) for text, (ids, scores) in parts]
    return [*sent, Chunk(".", (end,), (TokenScore(end, -0.1),) if logprobs else (), "stop", STATS)]


def sent(writer: ResponseWriter, of: list[Chunk]) -> list[dict[str, Any]]:
    objects = [*writer.opening(), *(item for chunk in of for item in writer.chunk(chunk))]
    return [json.loads(item.json_text()) for item in objects]


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
    assert sent(ChatWriter(envelope()), chunks()) == [
        {**SAME, "choices": choice({"role": "assistant", "content": ""})},
        {**SAME, "choices": choice({"content": "I"})},
        {**SAME, "choices": choice({"content": " see"})},
        {**SAME, "choices": choice({"content": "."})},
        {**SAME, "choices": choice({}, "stop"), "timings": TIMINGS},
    ]


def test_usage_is_null_until_the_last_chunk_which_has_no_choice() -> None:
    plain = sent(ChatWriter(envelope()), chunks())
    asked = sent(ChatWriter(envelope(include_usage=True)), chunks())
    assert asked[:-1] == [{**chunk, "usage": None} for chunk in plain]
    assert asked[-1] == {**SAME, "choices": [], "usage": USAGE}


def test_log_probabilities_come_with_their_chunk_and_without_the_end() -> None:
    found = sent(ChatWriter(envelope()), chunks(logprobs=True))
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
    last = sent(ChatWriter(envelope(routing=decision)), chunks())[-1]
    assert last["hybrid"] == {"backend": "onnx", "reason": "text only", "fallbacks": ["torch"]}


def completion(logprobs: bool = False) -> Completion:
    made = chunks(logprobs)
    scores = tuple(score for chunk in made for score in chunk.logprobs)
    return Completion("I see.", (), scores, "length", STATS, Decision("onnx", "text only"))


def test_a_whole_chat_has_every_field_that_clients_need() -> None:
    found = json.loads(ChatWriter(envelope()).whole(completion()).json_text())
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
    found = sent(CompletionWriter(envelope(include_usage=True)), chunks(logprobs=True))
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    texts = [chunk["choices"][0]["text"] for chunk in found[:-1]]
    assert texts == ["I", "", " see", "."]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[:-1]] == [None, None, None, "stop"]
    assert (found[-1]["choices"], found[-1]["usage"]) == ([], USAGE)
    whole = json.loads(CompletionWriter(envelope()).whole(completion(logprobs=True)).json_text())
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
    found = openai_error(error)
    body = json.loads(found.body.json_text())["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert (found.status, body["type"], found.headers.get("x-should-retry")) == (status, kind, retry)
    assert body["code"] is None or isinstance(body["code"], str)


def said(error: Exception) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(openai_error(error).body.json_text())["error"]
    return body


def test_the_set_ups_faults_are_told_in_fixed_words() -> None:
    for error in (
        BackendError("/home/someone/model.onnx is damaged", code="model_invalid"),
        BackendError("/home/someone: 0x7f00", code="backend_error"),
        RuntimeError("/home/someone"),
    ):
        told = said(error)["message"]
        assert "someone" not in told
        assert "log" in told


def test_fields_are_named_as_this_servers_clients_know_them() -> None:
    assert said(RequestError("no", param="json_schema"))["param"] == "response_format"
    assert said(RequestError("no", param="messages[1]"))["param"] == "messages[1]"
