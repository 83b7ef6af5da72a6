"""What a dialect is: how clients ask at one path, and how they are answered there.

A dialect is one file, which holds its ``Dialect``, and one name where the routes are made. The server knows
none of them by name: it reads a body, hands over chunks, and sends what the dialect makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from router.api.errors import ErrorResponse
from router.api.parse import Document, RequestBody
from router.api.request import ParsedRequest
from router.api.response import Envelope, Object
from router.types import Chunk, Completion


class ResponseWriter(Protocol):
    """Writes one answer, streamed or whole; it may keep count of what it has written."""

    def opening(self) -> Iterator[Object]:
        """What is sent before the first chunk."""
        ...

    def chunk(self, chunk: Chunk) -> Iterator[Object]:
        """What is sent for a chunk; nothing, if it has nothing to show."""
        ...

    def failed(self, error: ErrorResponse) -> Iterator[Object]:
        """What is sent last where the answer breaks off."""
        ...

    def whole(self, completion: Completion) -> Object:
        """The whole answer as one object."""
        ...


@dataclass(frozen=True)
class Framing:
    """How the objects of a stream become bytes."""

    media_type: str
    event: Callable[[Object], bytes]  # one object
    keep_alive: bytes  # sent while the model computes
    done: bytes  # sent after the last object of an answer that did not break off
    schema: Callable[[dict[str, Any]], dict[str, Any]]  # an event's JSON schema, of that of its object


@dataclass(frozen=True)
class Dialect:
    """What a route is made from."""

    path: str
    name: str  # of the operation in the OpenAPI document
    description: str
    body: type[RequestBody]
    whole: type[Object]
    piece: type[Object]  # what one event of a stream holds
    read: Callable[[Document], ParsedRequest]  # RequestError names what cannot be followed
    writer: Callable[[Envelope], ResponseWriter]
    framing: Framing
    error: Callable[[BaseException], ErrorResponse]
    error_body: type[Object]


def _event(item: Object) -> bytes:
    return b"data: " + item.json_text().encode("utf-8") + b"\n\n"


def _event_schema(item: dict[str, Any]) -> dict[str, Any]:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": item}
    return {
        "type": "object",
        "description": "A server-sent event; the last one is [DONE], or an error.",
        "properties": {"data": data},
        "required": ["data"],
    }


OPENAI_EVENTS = Framing("text/event-stream", _event, b": keep-alive\n\n", b"data: [DONE]\n\n", _event_schema)
"""Server-sent events without names."""
