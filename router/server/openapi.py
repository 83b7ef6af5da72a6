"""The OpenAPI document: every body, every status that can come, and nothing that cannot."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from router.api.chat import ChatBody
from router.api.completions import CompletionBody
from router.api.objects import ChatChunk, Error, Object
from router.server.middleware import PUBLIC

_REFERENCE = "#/components/schemas/{model}"


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """That a route may answer with these, in the one shape of errors."""
    return {status: {"model": Error, "description": HTTPStatus(status).phrase} for status in statuses}


def answered(whole: type[Object], piece: type[Object]) -> dict[str, Any]:
    """That an answer comes whole, or as a stream of events, each with a piece of it."""
    schema = {"$ref": _REFERENCE.format(model=piece.__name__)}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    event = {
        "type": "object",
        "description": "A server-sent event; the last one is [DONE], or an error.",
        "properties": {"data": data},
        "required": ["data"],
    }
    return {"model": whole, "content": {"text/event-stream": {"schema": event}}}


def json_body(name: str) -> dict[str, Any]:
    """That a route reads a JSON body of the model ``name``."""
    schema = {"$ref": _REFERENCE.format(model=name)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI) -> None:
    """Make the application's document complete."""
    made = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(made())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(found: dict[str, Any]) -> None:
    others = [(ChatBody, "validation"), (CompletionBody, "validation"), (ChatChunk, "serialization")]
    _, schemas = models_json_schema(others, ref_template=_REFERENCE)  # type: ignore[arg-type]
    parts = found["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    parts["schemas"].update(schemas["$defs"])
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    refused = {"$ref": _REFERENCE.format(model="Error")}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            statuses = operation["responses"]
            statuses.pop("422", None)  # the framework's own; here a body's faults are 400
            for status in (403,) if path in PUBLIC else (401, 403):
                statuses[str(status)] = {
                    "description": HTTPStatus(status).phrase,
                    "content": {"application/json": {"schema": refused}},
                }
            if path not in PUBLIC:
                operation["security"] = [{}, {"key": []}]
