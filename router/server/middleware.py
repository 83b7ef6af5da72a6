"""What every request passes first and every answer last: who may call, errors in one shape, and the log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.errors import ErrorResponse, openai_error
from router.server import log, page
from router.server.access import check_key
from router.server.cancel import ClientLeftError
from router.server.responses import error_response
from router.server.service import Service

ErrorForm: TypeAlias = Callable[[BaseException], ErrorResponse]

# answered without a key; everything else is not
PUBLIC = frozenset({"/health", "/livez", "/readyz", *page.FILES})

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EXPOSED = "x-request-id, x-hybrid-backend, x-hybrid-route-reason, x-hybrid-ignored, retry-after"
_CLIENT_LEFT = 499  # in the log only: nobody is there to read it
_OFTEN_REQUESTED = PUBLIC | {"/metrics"}  # by machines; not worth a line each


class RequestMiddleware:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, service: Service, errors: Mapping[str, ErrorForm]) -> None:
        """``errors``: how an error is written where it is not OpenAI's form, by path."""
        self._app = app
        self._service = service
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._service)
        try:
            if (preflight := self._check(scope, exchange.request_headers)) is not None:
                await preflight(scope, receive, exchange.send)
            else:
                await self._app(exchange.scope, receive, exchange.send)
        except ClientLeftError:
            exchange.status = _CLIENT_LEFT
        except Exception as error:
            await self._refuse(exchange, error, receive)
        finally:
            exchange.write_log()

    def _check(self, scope: Scope, headers: Headers) -> Response | None:
        """RequestError: the caller may not. A response: a browser asks whether a page may."""
        policy, origin, host = self._service.access_policy, headers.get("origin"), headers.get("host")
        policy.check_host(host)
        policy.check_origin(origin, host)
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if preflight and origin is not None and policy.allows(origin):
            return Response(status_code=204, headers=_PREFLIGHT)
        if scope["path"] not in PUBLIC:
            authorization = dict(scope["headers"]).get(b"authorization")
            check_key(authorization, self._service.settings.keys)
        return None

    async def _refuse(self, exchange: _Exchange, error: Exception, receive: Receive) -> None:
        log.add_failure(exchange.log_fields, error)
        if exchange.started:
            # cut off, so that nobody takes a part for the whole; the text of the error goes nowhere
            raise RuntimeError("the answer broke off") from None
        answer = self._errors.get(exchange.scope["path"], openai_error)(error)
        retry_after = self._service.retry_after(answer.code)
        await error_response(answer, retry_after)(exchange.scope, receive, exchange.send)


_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type, x-request-id, x-hybrid-backend, "
    "x-hybrid-debug",
    "access-control-max-age": "600",
}


class _Exchange:
    """One request and its answer, as the middleware sees them."""

    def __init__(self, scope: Scope, send: Send, service: Service) -> None:
        self.request_headers = Headers(scope=scope)
        self.status = 0
        self.started = False
        self.log_fields: MutableMapping[str, Any] = {}  # what is written down besides the usual
        self._send, self._service, self._sent_bytes = send, service, 0
        self._began = time.perf_counter()
        given_id = self.request_headers.get("x-request-id", "")
        self.id = given_id if _ID.fullmatch(given_id) else uuid.uuid4().hex
        self._method = scope["method"] if scope["method"].isalpha() else "?"
        state = {**scope.get("state", {}), "log_fields": self.log_fields}
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
            self._allow_origin(headers)
            message = {**message, "headers": headers.raw}
        self._sent_bytes += len(message.get("body", b""))
        await self._send(message)

    def write_log(self) -> None:
        """One line in the log."""
        route = getattr(self.scope.get("route"), "path", "-")
        # a server's fault has a place; that it cannot take requests now is none
        fault = "where" in self.log_fields and self.log_fields["error"] not in ("loading", "draining")
        level = logging.ERROR if fault else logging.INFO
        if route in _OFTEN_REQUESTED and level == logging.INFO:
            level = logging.DEBUG
        seconds = round(time.perf_counter() - self._began, 4)
        log.write(
            f"{self._method} {route}",
            level,
            status=self.status,
            seconds=seconds,
            sent=self._sent_bytes,
            id=self.id,
            **self.log_fields,
        )

    def _allow_origin(self, headers: MutableHeaders) -> None:
        origin = self.request_headers.get("origin")
        if origin is None or not self._service.access_policy.allows(origin):
            return
        headers["access-control-allow-origin"] = origin
        headers["access-control-expose-headers"] = _EXPOSED
        headers.add_vary_header("origin")
