"""What a server is asked: a row for each case, in the order in which they are asked."""

import json
from dataclasses import dataclass, field
from typing import Any

from router.api.messages import data_uri
from tests.record.workspace import SCENES

CHAT, TEXTS, ROUTE = "/v1/chat/completions", "/v1/completions", "/v1/route"
ASK = {"model": "scenes", "messages": [{"role": "user", "content": "What can you do?"}]}
PROMPT = {"model": "scenes", "prompt": "What can you do?"}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Call:
    """One request; ``body``: an object is sent as JSON, bytes as they are."""

    name: str
    path: str = CHAT
    body: dict[str, Any] | bytes | None = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def _asked(name: str, headers: dict[str, str] | None = None, **fields: Any) -> Call:
    return Call(name, body={**ASK, **fields}, headers=headers or {})


def _prompted(name: str, **fields: Any) -> Call:
    return Call(name, TEXTS, {**PROMPT, **fields})


def _got(path: str, **headers: str) -> Call:
    return Call(path, path, method="GET", headers={key.replace("_", "-"): headers[key] for key in headers})


def _shown(address: str, **more: Any) -> list[dict[str, Any]]:
    part = {"type": "image_url", "image_url": {"url": address, **more}}
    return [{"role": "user", "content": [part, {"type": "text", "text": "Which colours do you see?"}]}]


QUADRANTS = (SCENES / "samples" / "quadrants.png").read_bytes()
IMAGE = _shown(data_uri(QUADRANTS))
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "n", "schema": {"enum": ["red", "green"]}},
}
SCRIPTED = {"model": "scenes@scripted"}
STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

ANSWERED = (
    _asked("a text"),
    _asked("a text, streamed", **STREAM),
    _asked("a text, streamed with usage", **USAGE),
    _asked("an image", messages=IMAGE),
    _asked("an image, streamed", messages=IMAGE, **USAGE),
    _asked("an image of low detail", messages=_shown(data_uri(QUADRANTS), detail="low")),
    _asked("an image made smaller", messages=IMAGE, mm_processor_kwargs={"max_pixels": 9216}),
    _asked("JSON of a schema", messages=IMAGE, response_format=FORMAT),
    _asked("JSON of a schema, streamed", messages=IMAGE, response_format=FORMAT, **STREAM),
    _asked("a format of text", messages=IMAGE, response_format={"type": "text"}),
    _asked("log probabilities", **SCRIPTED, logprobs=True, top_logprobs=1),
    _asked("log probabilities, streamed", **SCRIPTED, logprobs=True, **STREAM),
    _asked("one answer", n=1, stop=" shapes"),
    _asked("a stop, streamed", stop=[" shapes", "x"], **STREAM),
    _asked("two tokens", max_tokens=2),
    _asked("two tokens by the newer name, streamed", max_completion_tokens=2, **STREAM),
    _asked("fields that are ignored", user="me", store=True, frobnicate=1, **STREAM),
    _asked("with the routing in the body", {"x-hybrid-debug": "1"}),
    _asked("by a backend in the header", {"x-hybrid-backend": "onnx"}),
    _asked("by a backend in the model", **SCRIPTED),
    _asked("by the alias", model="auto"),
    _asked("with an id", {"x-request-id": "abc-1.2_3"}),
    _prompted("a prompt"),
    _prompted("a prompt, streamed", **USAGE),
    _prompted("a prompt with log probabilities", model="scenes@scripted", logprobs=1),
    _prompted("a prompt with log probabilities, streamed", model="scenes@scripted", logprobs=0, stream=True),
    _prompted("a prompt of two tokens", max_tokens=2),
    Call("the route of a text", ROUTE, ASK),
    Call("the route of an image", ROUTE, {**ASK, "messages": IMAGE, "max_tokens": 9}),
    Call("the route of an unknown model", ROUTE, {**ASK, "model": "gpt-4"}),
    *map(_got, ("/v1/models", "/v1/models/scenes", "/v1/models/none", "/health", "/livez", "/readyz")),
)

_FIELDS: tuple[dict[str, Any], ...] = (
    {"model": 1},
    {"model": "gpt-4"},
    {"model": "scenes@nothing"},
    {"messages": []},
    {"messages": "Hi"},
    {"messages": [{"content": "Hi"}]},
    {"messages": [{"role": "root", "content": "Hi"}]},
    {"messages": [{"role": "tool", "content": "Hi"}]},
    {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    {"messages": [{"role": "user", "content": "word " * 5000}]},
    {"temperature": "1"},
    {"temperature": 2.1},
    {"top_p": 0},
    {"top_k": -1},
    {"min_p": 1},
    {"presence_penalty": -3},
    {"repetition_penalty": 0},
    {"max_tokens": 0},
    {"max_tokens": 7.0},
    {"max_tokens": 4097},
    {"max_tokens": 1, "max_completion_tokens": 2},
    {"min_tokens": 9, "max_tokens": 8},
    {"n": 2},
    {"seed": 2**63},
    {"stop": ["a"] * 5},
    {"stop": ["a", None]},
    {"stop_token_ids": [1024]},
    {"logit_bias": {"a": 1}},
    {"logit_bias": {"1024": 1}},
    {"top_logprobs": 1},
    {"logprobs": True, "top_logprobs": 21},
    {"stream": "yes"},
    {"stream_options": {"include_usage": True}},
    {"response_format": {"type": "xml"}},
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "colour"}}}},
    {"mm_processor_kwargs": {"max_pixels": 0}},
    {"tools": [{"type": "function"}]},
    {"tool_choice": "required"},
    {"modalities": ["text", "audio"]},
    {"reasoning_effort": "high"},
    {"chat_template": "{{ x }}"},
    {"best_of": True},
    {"guided_regex": "a*"},
)

_ADDRESSES = {
    "a file": "/etc/hostname",
    "a file's URL": "file:///etc/hostname",
    "an address of this machine": "http://127.0.0.1:9/a.png",
    "an address": "https://example.org/a.png",
    "what is not base64": "data:image/png;base64,???",
    "a damaged image": data_uri(QUADRANTS[: len(QUADRANTS) // 2]),
    "a text": data_uri(b"no image"),
    "nothing": "",
}

REFUSED = (
    *(_asked(f"refused: {json.dumps(fields)[:60]}", **fields) for fields in _FIELDS),
    *(_asked(f"{name} for an image", messages=_shown(at)) for name, at in _ADDRESSES.items()),
    _asked("nine images", messages=IMAGE * 9),
    _asked("an unknown detail", messages=_shown(data_uri(QUADRANTS), detail="big")),
    _asked("an unknown backend in the header", {"x-hybrid-backend": "nothing"}),
    _asked("two backends", {"x-hybrid-backend": "onnx"}, **SCRIPTED),
    _asked("an image for a backend of texts", {"x-hybrid-backend": "genai"}, messages=IMAGE),
    _asked("a foreign host", {"host": "example.org"}),
    _asked("a foreign page", {"origin": "https://example.org"}),
    _asked("a media type", {"content-type": "text/plain"}),
    _asked("a charset", {"content-type": "application/json; charset=latin-1"}),
    Call("nothing", body=b"", headers=JSON),
    Call("half an object", body=b'{"a":', headers=JSON),
    Call("a list", body=b"[]", headers=JSON),
    Call("a key twice", body=b'{"a": 1, "a": 2}', headers=JSON),
    Call("NaN", body=b'{"a": NaN}', headers=JSON),
    Call("not UTF-8", body=b'{"model": "\xff"}', headers=JSON),
    Call("too deep", body=b"[" * 100_000, headers=JSON),
    Call("an object without a model", body={"messages": ASK["messages"]}),
    _prompted("a list of prompts", prompt=["a", "b"]),
    _prompted("a prompt of nothing", prompt=None),
    _prompted("a suffix", suffix="end"),
    _prompted("an echo", echo=True),
    Call("another method", method="GET"),
    Call("another method of models", "/v1/models", method="DELETE"),
    Call("another method of a chat", method="OPTIONS"),
    *map(_got, ("/v1", "/v1/chat/completions/", "/docs", "/%00", "/page/none.js")),
)

KEY = "secret"
WITH_KEY = {"authorization": f"Bearer {KEY}"}
ORIGIN = "https://app.example"

GUARDED = (
    _asked("without a key"),
    _asked("a wrong key", {"authorization": "Bearer wrong"}),
    _asked("a key of another scheme", {"authorization": f"Basic {KEY}"}),
    _asked("a key in small letters", {"authorization": f"bearer {KEY}"}, model="mine"),
    _asked("by its new name", WITH_KEY, model="mine"),
    _asked("by its old name", WITH_KEY),
    _asked("a page that may ask", {**WITH_KEY, "origin": ORIGIN}, model="mine"),
    Call(
        "a page asks whether it may",
        method="OPTIONS",
        headers={"origin": ORIGIN, "access-control-request-method": "POST"},
    ),
    _asked("a failure", WITH_KEY, model="mine"),
    _asked("a failure in mid-stream", WITH_KEY, model="mine", stream=True),
    _asked("an image of too many bytes", WITH_KEY, model="mine", messages=_shown(data_uri(bytes(3000)))),
    _asked("more images than one", WITH_KEY, model="mine", messages=IMAGE * 2),
    _asked("more than the context", WITH_KEY, model="mine", max_tokens=600),
    *(_got(path) for path in ("/health", "/v1/models", "/openapi.json")),
    _got("/v1/models", **WITH_KEY),
)

RAW = {
    "what is not HTTP": b"NONSENSE\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "too many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 70_000,
    "a body that is too large": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n",
}
