"""Listen, keep connections within limits, and end when a signal comes: finish what runs, or stop at once."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from backends.base import BackendError, RequestError
from backends.machine import use_few_arenas
from router.api.errors import openai_error
from router.server import log
from router.server.service import Service, ServiceState
from router.server.settings import Settings

_ARRIVED = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)


class TimedProtocol(H11Protocol):
    """One connection, within the limits of ``settings``."""

    def __init__(self, settings: Settings, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settings = settings
        self._receive_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self._refuse(503, "there are too many connections; come again later", "too_many_connections")
            return
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        self._await_request()
        super().data_received(data)
        if self.conn.their_state in _ARRIVED:
            self._receive_timer = _cancelled(self._receive_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._receive_timer = _cancelled(self._receive_timer)
        self._stall_timer = _cancelled(self._stall_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The reader is slow: what was sent fills the buffers."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._settings.stall_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader took it."""
        super().resume_writing()
        self._stall_timer = _cancelled(self._stall_timer)

    def send_400_response(self, msg: str) -> None:
        """Answer to what is not HTTP, or has headers that are too large."""
        error = sys.exc_info()[1]
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # an answer is under way, and nothing can be said in its middle
        elif isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            most = self._settings.max_header
            self._refuse(431, f"the headers have more than {most} bytes", "headers_too_large")
        else:
            self._refuse(400, "this is not an HTTP request", "invalid_http")

    def _await_request(self) -> None:
        if self._receive_timer is None:
            self._receive_timer = self.loop.call_later(self._settings.receive_timeout, self.transport.abort)

    def _refuse(self, status: int, message: str, code: str) -> None:
        body = openai_error(RequestError(message, code=code)).body.json_text().encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        response = h11.Response(status_code=status, headers=[*headers, ("connection", "close")])
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Take a timer back; what is left of it is none."""
    if timer is not None:
        timer.cancel()
    return None


_CLOSING_SECONDS = 2  # seconds for the last events and errors to be sent
_SEND_BUFFER = 128 * 1024  # bytes; the kernel takes twice of it for its own accounts
_TICK = 0.1  # seconds; uvicorn renews its date header every tenth
LAST_SECONDS = 1.0  # of draining: for what is cut off to end


def listen(settings: Settings, port: int) -> socket.socket:
    """A socket at the address; BackendError ``not_listening`` says why there is none."""
    host = settings.bound
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # inherited by every connection: what a slow reader leaves unread is little, and soon noticed
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # this too, as asyncio does it only where a socket names its protocol: else tokens wait 40 ms together
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise BackendError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --port",
            code="not_listening",
        ) from None


def serve(app: FastAPI, listener: socket.socket) -> int | None:
    """Answer until a signal comes; return its number, or None if it was told to end otherwise.

    A signal ends the service when the answers under way are whole, or after ``drain_timeout``; a second one
    ends it at once. Raises what kept the model from being loaded.
    """
    use_few_arenas()  # several threads for each request, hardly one of which allocates beside another
    server = make_server(app)
    server.run(sockets=[listener])
    failure = server.state.failure
    if failure is not None:
        raise failure
    return server.signal


def make_server(app: FastAPI) -> HttpServer:
    """The server of an application made by ``create_app``, not yet running."""
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=partial(TimedProtocol, service.settings),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=service.settings.max_header,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
    )
    return HttpServer(config, service.state, service.settings.drain_timeout)


class HttpServer(uvicorn.Server):
    """uvicorn's server, which goes on listening while it drains, so that it can say so."""

    def __init__(self, config: uvicorn.Config, state: ServiceState, drain_timeout: float) -> None:
        super().__init__(config)
        self.state = state
        self.signal: int | None = None
        self._drain_timeout = drain_timeout
        self._deadline: float | None = None  # of the draining

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Have signals end the service, where they arrive at all."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.end, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def end(self, number: int | None = None) -> None:
        """Finish what runs, but take nothing more; at the second call, stop at once."""
        now = asyncio.get_running_loop().time()
        self.force_exit = self._deadline is not None
        # telling streams that they end here, and what computes to stop, is a part of the time
        seconds = max(self._drain_timeout / 2, self._drain_timeout - LAST_SECONDS)
        self._deadline = now if self.force_exit else now + seconds
        self.signal = number
        log.write("stopping" if self.force_exit else "draining", under_way=len(self.state.cancel_scopes))
        self.state.drain()

    async def main_loop(self) -> None:
        """Wait until there is a reason to end."""
        ticks, loop, logged_ready = 0, asyncio.get_running_loop(), False
        while not await self.on_tick(ticks) and self.state.failure is None:
            if self._deadline is not None and (not self.state.cancel_scopes or loop.time() >= self._deadline):
                break
            if self.state.phase == "ready" and not logged_ready:
                logged_ready = True
                log.write("ready")
            ticks += 1
            await asyncio.sleep(_TICK)
        self.state.drain()
        self.state.cut()
