"""What goes over the wire, byte by byte where clients depend on it."""

import json
import threading
import time
from typing import Any

import pytest

from benchmarks.load.image_files import encoded, photo
from router.api.messages import data_uri
from tests.server.conftest import ANSWER, ASK, Served, until

IMAGE = data_uri(encoded(photo(128, 96), "PNG"))
SHOWN = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": IMAGE}},
            {"type": "text", "text": "Which colours?"},
        ],
    }
]


def streamed(served: Served, **fields: Any) -> tuple[Any, list[str]]:
    """The response and its events, comments too, each as it was sent."""
    with served.client.stream(
        "POST", "/v1/chat/completions", json={**ASK, "stream": True, **fields}
    ) as response:
        return response, response.read().decode().split("\n\n")


def objects(events: list[str]) -> list[dict[str, Any]]:
    return [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]


def test_a_whole_answer(served: Served) -> None:
    response = served.ask()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert abs(body["created"] - time.time()) < 60
    assert body["model"] == "scenes"
    (choice,) = body["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": ANSWER, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "image_tokens": 0}
    assert body["timings"]["predicted_n"] == usage["completion_tokens"]
    assert "hybrid" not in body


def test_a_streamed_answer_event_by_event(served: Served) -> None:
    response, events = streamed(served)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["transfer-encoding"] == "chunked"
    assert events[-2:] == ["data: [DONE]", ""]
    found = objects(events)
    assert len(found) == len(events) - 2
    assert len({chunk["id"] for chunk in found}) == 1
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in found} == {"scenes"}
    assert len({chunk["created"] for chunk in found}) == 1
    assert not any("usage" in chunk for chunk in found)
    first, *middle, last = [chunk["choices"][0] for chunk in found]
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert all(set(choice["delta"]) == {"content"} for choice in middle)
    assert "".join(choice["delta"]["content"] for choice in middle) == ANSWER
    assert last["delta"] == {}
    assert [choice["finish_reason"] for choice in (first, *middle, last)] == [None] * (len(found) - 1) + [
        "stop"
    ]
    assert found[-1]["timings"]["predicted_n"] > 5


def test_usage_is_streamed_when_it_is_asked_for(served: Served) -> None:
    _, events = streamed(served, stream_options={"include_usage": True})
    *chunks, last = objects(events)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == served.ask().json()["usage"]


def test_an_answer_that_is_cut_says_so_and_no_other_does(served: Served) -> None:
    assert served.ask(max_tokens=3).json()["choices"][0]["finish_reason"] == "length"
    _, events = streamed(served, max_tokens=3)
    assert objects(events)[-1]["choices"][0]["finish_reason"] == "length"
    _, events = streamed(served, stop=" green")
    assert objects(events)[-1]["choices"][0]["finish_reason"] == "stop"
    assert "green" not in "".join(events)


def test_a_silent_stream_is_kept_alive_by_comments(served: Served) -> None:
    served.plays("Hi", delay=0.7)
    _, events = streamed(served)
    comments = [event for event in events if event.startswith(":")]
    assert set(comments) == {": keep-alive"}
    assert len(comments) >= 3
    assert events[0].startswith("data: "), "the stream has begun before the prompt is read"
    assert events[-2] == "data: [DONE]"


def test_the_headers_of_a_stream_come_before_its_turn(served: Served, gate: threading.Event) -> None:
    served.plays("Hi")
    with served.client.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as first:
        events = first.iter_lines()
        next(events)
        with served.client.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as second:
            waiting = second.iter_lines()  # which leaves when nobody holds it
            assert '"role":"assistant"' in next(waiting)
            until(lambda: served.service.queue.inside == 2 and served.backend.open_sessions)
            assert served.backend.open_sessions == 1, "its turn has not come"
            gate.set()
        assert "data: [DONE]" in list(events)


def test_images_are_counted_and_their_size_is_reported(served: Served) -> None:
    body = served.ask(messages=SHOWN).json()
    assert body["usage"]["prompt_tokens_details"]["image_tokens"] == 12
    assert body["timings"]["image_grid_thw"] == [[1, 6, 8]]
    assert body["timings"]["resized_to"] == [[128, 96]]
    smaller = served.ask(messages=SHOWN, mm_processor_kwargs={"max_pixels": 9216}).json()
    assert smaller["timings"]["resized_to"] == [[96, 64]]


def test_headers_say_who_answered_and_why(served: Served) -> None:
    response = served.ask(user="me", frobnicate=1)
    assert response.headers["x-hybrid-backend"] == "scripted"
    assert response.headers["x-hybrid-route-reason"] == "asked for by name"
    assert response.headers["x-hybrid-ignored"] == "user, frobnicate"
    response, _ = streamed(served)
    assert response.headers["x-hybrid-backend"] == "scripted"
    assert "x-hybrid-ignored" not in response.headers


def test_a_request_keeps_its_id_if_it_is_fit_for_a_header(served: Served) -> None:
    said = served.client.post("/v1/chat/completions", json=ASK, headers={"x-request-id": "abc-1.2_3"})
    assert said.headers.get_list("x-request-id") == ["abc-1.2_3"]
    for name in ("a b", "x" * 65, "\xe9", ""):
        response = served.client.get("/health", headers={"x-request-id": name.encode("latin-1")})
        assert len(response.headers["x-request-id"]) == 32
    assert served.client.get("/nowhere", headers={"x-request-id": "lost"}).headers["x-request-id"] == "lost"


def test_the_routing_is_told_in_the_body_to_whom_asks(served: Served) -> None:
    response = served.client.post("/v1/chat/completions", json=ASK, headers={"x-hybrid-debug": "1"})
    assert response.json()["hybrid"] == {
        "backend": "scripted",
        "reason": "asked for by name",
        "fallbacks": [],
    }


def test_the_model_has_an_alias_and_may_name_its_backend(served: Served) -> None:
    for model in ("scenes", "auto", "scenes@scripted", "auto@scripted"):
        response = served.ask(model=model)
        assert response.status_code == 200
        assert response.json()["model"] == "scenes"
    for model in ("gpt-4", "scenes@nothing", "nothing@scripted", "../scenes", "", "scenes@", "SCENES"):
        response = served.ask(model=model)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
        assert response.json()["error"]["param"] == "model"


def test_a_backend_named_in_the_header_answers_or_nothing_does(served: Served) -> None:
    def named(backend: str, model: str = "scenes") -> Any:
        headers = {"x-hybrid-backend": backend}
        return served.client.post("/v1/chat/completions", json={**ASK, "model": model}, headers=headers)

    assert named("scripted").status_code == 200
    assert named("nothing").json()["error"]["code"] == "backend_not_found"
    assert named("onnx", "scenes@scripted").json()["error"]["param"] == "x-hybrid-backend"


def test_models_are_listed_and_found(served: Served) -> None:
    listed = served.client.get("/v1/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert model["id"] == "scenes"
    assert (model["object"], model["owned_by"]) == ("model", "hybrid")
    assert model["capabilities"] == ["text", "image"]
    assert model["meta"]["context"] == 4096
    assert served.client.get("/v1/models/scenes").json() == model
    missing = served.client.get("/v1/models/a/b")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_older_completions_are_answered(served: Served) -> None:
    body = served.client.post("/v1/completions", json={"model": "scenes", "prompt": "Which?"}).json()
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": ANSWER, "logprobs": None, "finish_reason": "stop"}]
    response = served.client.post("/v1/completions", json={"model": "scenes", "prompt": "?", "stream": True})
    events = response.text.split("\n\n")
    assert events[-2] == "data: [DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in objects(events)) == ANSWER


def test_a_dry_run_says_what_would_be_done_and_computes_nothing(served: Served) -> None:
    before = len(served.backend.sessions)
    served.plays(fault="raise")
    response = served.ask("/v1/route", messages=SHOWN, max_tokens=9)
    assert response.status_code == 200
    body = response.json()
    assert body["backend"] == "scripted"
    assert body["reason"] == "asked for by name"
    assert (body["image_tokens"], body["max_tokens"]) == (12, 9)
    served.plays()
    assert body["prompt_tokens"] == served.ask(messages=SHOWN).json()["usage"]["prompt_tokens"]
    candidates = {found["backend"]: found for found in body["candidates"]}
    assert candidates["genai"]["refusal"] == "it reads text only"
    assert candidates["scripted"]["loaded"] is True
    assert len(served.backend.sessions) == before


def test_log_probabilities_are_given_on_request(served: Served) -> None:
    body = served.ask(logprobs=True, top_logprobs=2).json()
    scores = body["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(score["bytes"]) for score in scores).decode() == ANSWER
    assert all(len(score["top_logprobs"]) == 2 for score in scores)
    assert all(score["logprob"] <= 0 for score in scores)


def test_the_answer_keeps_to_a_json_schema(served: Served) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    asked = {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {**schema, "additionalProperties": False}},
    }
    served.plays('Well. {"n": 12}')
    body = served.ask(response_format=asked, temperature=1, seed=1, max_tokens=200).json()
    assert set(json.loads(body["choices"][0]["message"]["content"])) == {"n"}
    assert body["choices"][0]["finish_reason"] == "stop"
    wrong = served.ask(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "colour"}}})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_json_schema")
    assert wrong.json()["error"]["param"] == "response_format"


def test_health_and_metrics(served: Served) -> None:
    for path in ("/health", "/readyz", "/livez"):
        response = served.client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
    served.ask(messages=SHOWN)
    images = 'hybrid_image_tokens_total{backend="scripted",modality="image",model="scenes"} '
    until(lambda: images in served.client.get("/metrics").text)
    text = served.client.get("/metrics").text
    for name in (
        "requests_running",
        "requests_waiting",
        "requests_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_bucket",
        "request_queue_time_seconds_bucket",
        "request_prefill_time_seconds_bucket",
        "request_decode_time_seconds_bucket",
        "vision_encode_seconds_bucket",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "mm_cache_queries_total",
        "mm_cache_hits_total",
        "route_decisions_total",
        "fallbacks_total",
    ):
        assert f"hybrid_{name}" in text, name
    head = served.client.head("/metrics")
    assert head.status_code == 200
    assert head.content == b""
    assert int(head.headers["content-length"]) > 1000


def test_a_failure_in_mid_stream_is_an_error_event_and_no_end(served: Served) -> None:
    for fault, code in (("raise", "backend_error"), ("nan", "numerical_error")):
        served.plays(fault=fault, fault_at=3)
        response, events = streamed(served)
        assert response.status_code == 200
        *chunks, last = objects(events)
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
        assert last["error"]["code"] == code
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert "[DONE]" not in "".join(events)
        whole = served.ask()
        assert (whole.status_code, whole.json()["error"]["code"]) == (500, code)
        assert whole.headers["x-should-retry"] == "false"
    served.plays()
    assert served.ask().status_code == 200


def test_a_seed_gives_the_same_answer_alone_and_under_load(served: Served) -> None:
    def once() -> str:
        body = served.ask(temperature=2, seed=7, top_k=5).json()
        return str(body["choices"][0]["message"]["content"])

    alone = once()
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(once())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [alone] * 6


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions/", "/docs", "/redoc", "/%00"])
def test_there_is_nothing_elsewhere(served: Served, path: str) -> None:
    response = served.client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_another_method_is_told_which_one_there_is(served: Served) -> None:
    for method, path, allowed in (("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/models", "GET")):
        response = served.client.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == allowed
        assert response.json()["error"]["code"] == "method_not_allowed"
