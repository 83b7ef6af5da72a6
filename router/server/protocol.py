"""HTTP/1.1 that waits for nobody for long.

The HTTP server beneath waits without end for the rest of a request and for a reader that does not read. Here
a request has a time to arrive in, as a whole, and what was sent a time to be taken in; connections are few
enough that the process can still open files.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from backends.base import RequestError
from router.api import failure
from router.server.settings import Settings

_ARRIVED = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)


def protocol(settings: Settings) -> type[H11Protocol]:
    """The protocol with the limits of ``settings``."""

    class Bounded(H11Protocol):
        """One connection."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._arriving: asyncio.TimerHandle | None = None
            self._stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Begin to wait for a request."""
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                self._refuse(503, "there are too many connections; come again later", "too_many_connections")
                return
            self._wait()

        def data_received(self, data: bytes) -> None:
            """Take a part of a request."""
            self._wait()
            super().data_received(data)
            if self.conn.their_state in _ARRIVED:
                self._arriving = _off(self._arriving)

        def connection_lost(self, exc: Exception | None) -> None:
            """Wait for nothing more."""
            self._arriving, self._stalled = _off(self._arriving), _off(self._stalled)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            """The reader is slow: what was sent fills the buffers."""
            super().pause_writing()
            if self._stalled is None:
                self._stalled = self.loop.call_later(settings.stall_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            """The reader took it."""
            super().resume_writing()
            self._stalled = _off(self._stalled)

        def send_400_response(self, msg: str) -> None:
            """Answer to what is not HTTP, or has headers that are too large."""
            error = sys.exc_info()[1]
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.abort()  # an answer is under way, and nothing can be said in its middle
            elif isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
                self._refuse(
                    431, f"the headers have more than {settings.max_header} bytes", "headers_too_large"
                )
            else:
                self._refuse(400, "this is not an HTTP request", "invalid_http")

        def _wait(self) -> None:
            if self._arriving is None:
                self._arriving = self.loop.call_later(settings.receive_timeout, self.transport.abort)

        def _refuse(self, status: int, message: str, code: str) -> None:
            body = failure(RequestError(message, code=code)).body.json_text().encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            response = h11.Response(status_code=status, headers=[*headers, ("connection", "close")])
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Bounded


def _off(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Take a timer back; what is left of it is none."""
    if timer is not None:
        timer.cancel()
    return None
