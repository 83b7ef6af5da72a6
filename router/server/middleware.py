"""What every request passes first and every answer last: who may call, errors in one shape, and the log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api import failure
from router.server import log, page
from router.server.access import check_key
from router.server.cancel import ClientLeftError
from router.server.responses import failed
from router.server.service import Service

# answered without a key; everything else is not
PUBLIC = frozenset({"/health", "/livez", "/readyz", *page.FILES})

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EXPOSED = "x-request-id, x-hybrid-backend, x-hybrid-route-reason, x-hybrid-ignored, retry-after"
_CLIENT_LEFT = 499  # in the log only: nobody is there to read it
_OFTEN_ASKED = PUBLIC | {"/metrics"}  # by machines; not worth a line each


class RequestMiddleware:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Exchange(scope, send, self._service)
        try:
            if (preflight := self._check(scope, visit.asked)) is not None:
                await preflight(scope, receive, visit.send)
            else:
                await self._app(visit.scope, receive, visit.send)
        except ClientLeftError:
            visit.status = _CLIENT_LEFT
        except Exception as error:
            await self._refuse(visit, error, receive)
        finally:
            visit.told()

    def _check(self, scope: Scope, asked: Headers) -> Response | None:
        """RequestError: the caller may not. A response: a browser asks whether a page may."""
        callers, origin, host = self._service.callers, asked.get("origin"), asked.get("host")
        callers.check_host(host)
        callers.check_origin(origin, host)
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in asked
        if preflight and origin is not None and callers.allows(origin):
            return Response(status_code=204, headers=_PREFLIGHT)
        if scope["path"] not in PUBLIC:
            said = dict(scope["headers"]).get(b"authorization")
            check_key(said, self._service.settings.keys)
        return None

    async def _refuse(self, visit: _Exchange, error: Exception, receive: Receive) -> None:
        found = failure(error)
        log.note(visit.log, error)
        if visit.started:
            # cut off, so that nobody takes a part for the whole; the text of the error goes nowhere
            raise RuntimeError("the answer broke off") from None
        retry = self._service.retry_after(found.body.error.code or "")
        await failed(found, retry)(visit.scope, receive, visit.send)


_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type, x-request-id, x-hybrid-backend, "
    "x-hybrid-debug",
    "access-control-max-age": "600",
}


class _Exchange:
    """One request and its answer, as the door sees them."""

    def __init__(self, scope: Scope, send: Send, service: Service) -> None:
        self.asked = Headers(scope=scope)
        self.status = 0
        self.started = False
        self.log: MutableMapping[str, Any] = {}  # what is written down besides the usual
        self._send, self._service, self._sent = send, service, 0
        self._since = time.perf_counter()
        said = self.asked.get("x-request-id", "")
        self.id = said if _ID.fullmatch(said) else uuid.uuid4().hex
        self._method = scope["method"] if scope["method"].isalpha() else "?"
        state = {**scope.get("state", {}), "log": self.log}
        # HEAD is GET without a body, which the HTTP library leaves out by itself
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        self.scope: Scope = {**scope, "method": method, "state": state}

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = MutableHeaders(raw=list(message["headers"]))
            headers["x-request-id"] = self.id
            headers["x-content-type-options"] = "nosniff"
            self._allow(headers)
            message = {**message, "headers": headers.raw}
        self._sent += len(message.get("body", b""))
        await self._send(message)

    def told(self) -> None:
        """One line in the log."""
        route = getattr(self.scope.get("route"), "path", "-")
        # a server's fault has a place; that it cannot take requests now is none
        fault = "where" in self.log and self.log["error"] not in ("loading", "draining")
        level = logging.ERROR if fault else logging.INFO
        if route in _OFTEN_ASKED and level == logging.INFO:
            level = logging.DEBUG
        seconds = round(time.perf_counter() - self._since, 4)
        log.tell(
            f"{self._method} {route}",
            level,
            status=self.status,
            seconds=seconds,
            sent=self._sent,
            id=self.id,
            **self.log,
        )

    def _allow(self, headers: MutableHeaders) -> None:
        origin = self.asked.get("origin")
        if origin is None or not self._service.callers.allows(origin):
            return
        headers["access-control-allow-origin"] = origin
        headers["access-control-expose-headers"] = _EXPOSED
        headers.add_vary_header("origin")
