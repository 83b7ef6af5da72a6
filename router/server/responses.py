"""Answers over HTTP: an object, an error, a stream of events, and whether the server is ready."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.api.errors import ErrorResponse
from router.api.response import Object
from router.types import Decision

_STREAMED = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # a proxy is not to collect it
}
_PATH = re.compile(r"(?<![\w/])[~/][^\s,;:)']*")


def json_response(item: Object, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    """One object."""
    return Response(
        item.json_text(), status, {"cache-control": "no-store", **(headers or {})}, "application/json"
    )


def error_response(error: ErrorResponse, retry_after: int | None = None) -> Response:
    """An error; ``retry_after``: seconds after which to come again."""
    again = {} if retry_after is None else {"retry-after": str(retry_after)}
    return json_response(error.body, {**error.headers, **again}, error.status)


def routing_headers(decision: Decision, ignored: tuple[str, ...]) -> dict[str, str]:
    """The headers that say who answers and why, and which fields nobody read."""
    headers = {"x-hybrid-backend": decision.backend, "x-hybrid-route-reason": _for_header(decision.reason)}
    return {**headers, **({"x-hybrid-ignored": ", ".join(ignored)} if ignored else {})}


class EventStream(Response):
    """Events, each sent when it is there."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        media_type: str,
        headers: Mapping[str, str],
        on_end: Callable[[], None],
    ) -> None:
        """``on_end`` is called in any case, also if not one event was sent."""
        super().__init__(headers={"content-type": media_type, **_STREAMED, **headers})
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            await send(start)
            async with aclosing(self._events) as events:
                async for piece in events:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._on_end()


def without_paths(reason: str) -> str:
    """A reason that names no folder of this machine, on one line."""
    return " ".join(_PATH.sub("...", reason).split())


def _for_header(reason: str) -> str:
    return without_paths(reason).encode("ascii", "replace").decode("ascii")[:300].rstrip()


class Status(Object):
    """That all is well."""

    status: str


class Unavailable(Object):
    """Why it is not; ``code`` is a number here, and nowhere else."""

    code: int
    message: str
    type: str


class NotReady(Object):
    """No request is answered now."""

    error: Unavailable


READINESS: dict[int | str, dict[str, Any]] = {200: {"model": Status}, 503: {"model": NotReady}}


def readiness(problem: str | None) -> Response:
    """That requests are answered, or why they are not."""
    if problem is None:
        return json_response(Status(status="ok"))
    error = Unavailable(code=503, message=problem, type="unavailable_error")
    return json_response(NotReady(error=error), {"retry-after": "5"}, 503)
