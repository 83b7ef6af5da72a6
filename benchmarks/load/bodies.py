"""What the crowd asks, good and bad."""

from __future__ import annotations

from typing import Any

import httpx2

from benchmarks.served import ROOT, Server
from router.api.messages import data_uri

CHAT = "/v1/chat/completions"
ENDLESS: dict[str, Any] = {"max_tokens": 3000, "ignore_eos": True}
IMAGE = (ROOT / "router" / "scenes" / "samples" / "quadrants.png").read_bytes()
_PATIENCE = 300.0  # seconds until a request counts as hanging


def body(question: str = "What can you do?", model: str = "scenes", **more: Any) -> dict[str, Any]:
    """A chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": question}], **more}


def imaged(data: bytes, question: str = "Which colours?", **more: Any) -> dict[str, Any]:
    """A chat completion about an image, which stands before the question."""
    return shown(data_uri(data), question, **more)


def shown(url: str, question: str = "Which colours?", **more: Any) -> dict[str, Any]:
    """A chat completion about the image at an address."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return {**body(**more), "messages": [{"role": "user", "content": parts}]}


def client(server: Server, connections: int) -> httpx2.AsyncClient:
    """One that can hold so many connections."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(base_url=server.address, timeout=_PATIENCE, limits=limits)


def good() -> list[dict[str, Any]]:
    """Requests that are answered."""
    script = [body(model="scenes@scripted"), body(model="scenes@scripted", stream=True)]
    model = [body(max_tokens=8), imaged(IMAGE, max_tokens=8), body(model="scenes@onnx", max_tokens=4)]
    return [*script * 3, *model, imaged(IMAGE, model="scenes@scripted")]


def bad() -> list[Any]:
    """Requests that are not; a text is sent as it is."""
    return [
        "{",
        "[" * 2000,
        body(model="no-such-model"),
        body(temperature=9),
        body(tools=[{"type": "function"}]),
        body(model="scenes@scripted", response_format={"type": "json_schema", "json_schema": {"schema": 3}}),
        body("word " * 6000),
        imaged(IMAGE[:60]),
        imaged(b"no image at all"),
        {"model": "scenes", "messages": []},
    ]
