"""Any OpenAI-compatible server as a benchmark's engine: it is asked to stream, and the events are timed."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from itertools import pairwise
from time import perf_counter as clock
from typing import Any

from backends.base import BackendError, RequestError
from router.api.messages import message_json
from router.bench.engine import Facts, Sample, TimedAnswer
from router.types import Message

KEYS = ("HYBRID_API_KEY", "OPENAI_API_KEY")  # environment variables, the first that is set
_SECONDS = 600  # without a byte from the server


@dataclass(frozen=True)
class ServerConfig:
    """Where a server is, and which of its models is meant; None: the first that it lists."""

    url: str
    model: str | None = None

    def __call__(self) -> ServerEngine:
        """Ask it for its models."""
        return ServerEngine(self)


class ServerEngine:
    """One model of one server; safe to use from many threads."""

    def __init__(self, server: ServerConfig) -> None:
        """BackendError: it does not answer, or has no such model."""
        self._base = base_url(server.url)
        with self._open("models") as response:
            names = _model_names(response.read())
        if server.model is not None and server.model not in names:
            raise BackendError(f"the server has no model '{server.model}'; it lists {', '.join(names)}")
        self.model = server.model or names[0]
        self.facts = Facts(numbers=f"served as {self.model}")

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Stream an answer; its tokens are those the server counts, or else the events that have text."""
        request = _request(self.model, messages, output_tokens)
        started = clock()
        arrivals: list[float] = []
        pieces: list[str] = []
        usage: dict[str, Any] = {}
        with self._open("chat/completions", request) as response:
            for event in events(response):
                usage = event.get("usage") or usage
                if text := _text(event):
                    arrivals.append(clock())
                    pieces.append(text)
        ended = clock()
        if not arrivals:
            raise BackendError("the server answered without any text")
        sample = Sample(
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or len(arrivals)),
            first_token_seconds=arrivals[0] - started,
            decode_seconds=arrivals[-1] - arrivals[0],
            total_seconds=ended - started,
            gaps=tuple(after - before for before, after in pairwise(arrivals)),
            cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        )
        return TimedAnswer("".join(pieces), sample)

    def _open(self, path: str, request: dict[str, Any] | None = None) -> Any:
        """The response; BackendError in the server's own words where it refuses."""
        headers = {"Content-Type": "application/json"}
        if key := next((os.environ[name] for name in KEYS if os.environ.get(name)), None):
            headers["Authorization"] = f"Bearer {key}"
        data = None if request is None else json.dumps(request).encode()
        url = f"{self._base}/{path}"
        try:
            return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                raise BackendError(f"{url} answers {error.code}: {_reason(error.read(2000))}") from None
        except (OSError, HTTPException) as error:
            raise BackendError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from None


def base_url(url: str) -> str:
    """The address under which ``chat/completions`` stands; RequestError: it is none of HTTP."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(f"--url wants an address such as http://127.0.0.1:8000, got '{url}'", param="url")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def events(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON of each event of a stream, up to the one that says it is done.

    BackendError: the server reports an error, sends something else, or stops in the middle.
    """
    try:
        for line in lines:
            if not line.startswith(b"data:"):
                continue  # a comment that keeps the connection alive, or the end of an event
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            event = json.loads(data)
            if not isinstance(event, dict) or "error" in event:
                raise BackendError(f"the server says in its stream: {_reason(data)}")
            yield event
    except (OSError, ValueError, HTTPException) as error:
        raise BackendError(f"the server's stream cannot be read: {error}") from None
    raise BackendError("the server's stream ended before it said that it was done")


def _request(model: str, messages: Sequence[Message], output_tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [message_json(message) for message in messages],
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,  # known to vLLM, llama.cpp and hybrid; others end where the model does
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _text(event: dict[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return delta.get("content") or delta.get("reasoning_content") or ""


def _model_names(data: bytes) -> list[str]:
    try:
        names = [str(model["id"]) for model in json.loads(data)["data"]]
    except (ValueError, KeyError, TypeError):
        names = []
    if not names:
        raise BackendError("the server lists no models; is it an OpenAI-compatible one?")
    return names


def _reason(data: bytes) -> str:
    """What an error's body says, shortened."""
    try:
        error = json.loads(data)["error"]
        reason = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        reason = data.decode("utf-8", "replace")
    return " ".join(str(reason).split())[:300]
