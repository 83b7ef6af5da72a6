"""The OpenAPI document: every body, every status that can come, and nothing that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from router.api.dialect import Dialect
from router.api.response import Error, Object
from router.server.middleware import PUBLIC


def error_schemas(*statuses: int, body: type[Object] = Error) -> dict[int | str, dict[str, Any]]:
    """That a route may answer with these, in one shape of errors."""
    return {status: {"model": body, "description": HTTPStatus(status).phrase} for status in statuses}


def answer_schemas(dialect: Dialect) -> dict[str, Any]:
    """That an answer comes whole, or as a stream of events, each with a piece of it."""
    event = dialect.framing.schema(_reference(dialect.piece))
    return {"model": dialect.whole, "content": {dialect.framing.media_type: {"schema": event}}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """That a route reads a JSON body of this model."""
    content = {"application/json": {"schema": _reference(model)}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, dialects: Sequence[Dialect]) -> None:
    """Make the application's document complete."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate(), dialects)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


_REFERENCE = "#/components/schemas/{model}"


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _complete(document: dict[str, Any], dialects: Sequence[Dialect]) -> None:
    models: dict[tuple[type[BaseModel], Literal["validation", "serialization"]], None] = {}
    models |= {(dialect.body, "validation"): None for dialect in dialects}
    # the framework itself describes what comes whole
    pieces = (dialect.piece for dialect in dialects if dialect.piece is not dialect.whole)
    models |= {(piece, "serialization"): None for piece in pieces}
    _, schemas = models_json_schema(list(models), ref_template=_REFERENCE)
    components = document["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["schemas"].update(schemas["$defs"])
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    errors = {dialect.path: dialect.error_body for dialect in dialects}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(operation, path in PUBLIC, errors.get(path, Error))


def _complete_operation(operation: dict[str, Any], public: bool, error: type[Object]) -> None:
    statuses = operation["responses"]
    statuses.pop("422", None)  # the framework's own; here a body's faults are 400
    for status in (403,) if public else (401, 403):
        statuses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": _reference(error)}},
        }
    if not public:
        operation["security"] = [{}, {"key": []}]
