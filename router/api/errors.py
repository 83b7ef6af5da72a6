"""Failures -> HTTP status, OpenAI's error object, and what a client may do about it.

A client's own fault is never a 5xx: official clients repeat those, and the work would be done three times.
For the same reason a 5xx that would come again says ``x-should-retry: false``.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.base import BackendError, RequestError
from router.api.response import Error, ErrorDetail, Object

_STATUS = {
    "invalid_api_key": 401,
    "forbidden_host": 403,
    "forbidden_origin": 403,
    "model_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "headers_too_large": 431,
    "unsupported_media_type": 415,
    "queue_full": 429,
    "too_many_connections": 503,
    "timeout": 504,
    "loading": 503,
    "draining": 503,
    "cancelled": 503,
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}
# named after a library's or a command's own field; a client of this server knows another
_PARAMS = {"json_schema": "response_format", "backend": "model", "role": "messages"}

# What a client is told of the set-up's faults: their own words may name folders of this machine
_MESSAGES = {
    "backend_unavailable": "that backend cannot be used on this server; leave the choice to it",
    "numerical_error": "the model's scores are not numbers",
    "backend_error": "the backend failed",
    "internal_inconsistency": "a check inside the server failed",
}
_OURS = {"timeout", "loading", "draining"}  # composed by the server itself, for clients
_MORE = "; the server's log has more under this request's id"
INTERNAL = "internal error" + _MORE


@dataclass(frozen=True)
class ErrorResponse:
    """An answer that is not a success."""

    status: int
    code: str  # the stable word for what went wrong
    body: Object
    headers: dict[str, str]


def openai_error(error: BaseException) -> ErrorResponse:
    """The answer to ``error`` in OpenAI's form; of what is not an error of ours, nothing is said."""
    if isinstance(error, RequestError):
        param = error.param and _PARAMS.get(error.param, error.param)
        return _response(_STATUS.get(error.code, 400), str(error), error.code, param)
    if not isinstance(error, BackendError):
        return _response(500, INTERNAL, "internal_error", None)
    # one that was asked for by name: what the router chooses by itself can be used
    status = 400 if error.code == "backend_unavailable" else _STATUS.get(error.code, 500)
    message = str(error) if error.code in _OURS else _MESSAGES.get(error.code, "the model failed") + _MORE
    return _response(status, message, error.code, None)


def _response(status: int, message: str, code: str, param: str | None) -> ErrorResponse:
    error_type = _TYPES.get(status, "invalid_request_error")
    headers = {"x-should-retry": "false"} if status in (500, 504) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    body = Error(error=ErrorDetail(message=message, type=error_type, param=param, code=code))
    return ErrorResponse(status, code, body, headers)
