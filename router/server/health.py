"""Whether the service can answer, in the words that health checks of llama.cpp know."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from router.api.objects import Object
from router.server.responses import json_response


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
