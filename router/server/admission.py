"""Bodies of requests: bounded one by one and all together, and JSON by their own account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import Receive

from backends.base import RequestError
from router.server.cancel import ClientLeftError
from router.server.settings import MIB

SMALL = 64 * 1024  # what a connection buffers anyway; only what a body has beyond this is counted


class Bodies:
    """Counts what all bodies together hold."""

    def __init__(self, most_each: int, most_together: int) -> None:
        self.held = 0
        self._most_each = most_each
        self._most_together = most_together

    @contextmanager
    def hold(self) -> Iterator[Body]:
        """A body that is counted until the context ends."""
        body = Body(self)
        try:
            yield body
        finally:
            self.held -= body.counted


class Body:
    """One body, counted as it grows."""

    def __init__(self, bodies: Bodies) -> None:
        self.counted = 0
        self._bodies = bodies

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body.

        RequestError ``unsupported_media_type``, ``body_too_large``, or ``queue_full``: all bodies together
        are too large. ClientLeftError: it never came to its end.
        """
        _check_type(headers.get("content-type", ""))
        length = headers.get("content-length", "")
        self._check(int(length) if length.isdecimal() else 0)
        data = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            data += message.get("body", b"")
            self._check(len(data))
            self._count(len(data))
            more = message.get("more_body", False)
        return bytes(data)

    def _check(self, size: int) -> None:
        most = self._bodies._most_each
        if size > most:
            raise RequestError(
                f"the body is larger than {most // MIB} MiB, the most that is read; send smaller pictures",
                code="body_too_large",
            )

    def _count(self, size: int) -> None:
        more = max(0, size - SMALL) - self.counted
        if more and self._bodies.held + more > self._bodies._most_together:
            raise RequestError(
                "too many large bodies are being read at once; come again later", code="queue_full"
            )
        self.counted += more
        self._bodies.held += more


def _check_type(said: str) -> None:
    kind, _, more = said.partition(";")
    name, _, charset = more.strip().partition("=")
    right = kind.strip().lower() == "application/json"
    if not right or (name.lower() == "charset" and charset.strip('" ').lower() not in ("utf-8", "utf8")):
        raise RequestError(
            "the body must be JSON in UTF-8, and its content-type application/json",
            code="unsupported_media_type",
        )
