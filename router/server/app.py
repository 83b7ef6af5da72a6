"""The application: which address does what."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from backends.base import RequestError
from router.api.chat import CHAT
from router.api.completions import COMPLETIONS
from router.api.errors import openai_error
from router.api.response import ModelList, ModelMeta, ModelObject
from router.router import Router
from router.server import metrics, page
from router.server.endpoints import RouteObject, dry_run, endpoint
from router.server.middleware import RequestMiddleware
from router.server.openapi import answer_schemas, describe, error_schemas, json_body
from router.server.responses import READINESS, Status, error_response, json_response, readiness
from router.server.service import Service, load
from router.server.settings import Settings

DIALECTS = (CHAT, COMPLETIONS)  # a route each
TITLE = "hybrid"


def create_app(router: Router, settings: Settings | None = None) -> FastAPI:
    """The service for one router; its model is loaded when the application starts."""
    service = Service(router, settings or Settings())

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncGenerator[None, None]:
        async with load(service):
            yield

    app = FastAPI(
        title=TITLE,
        version=version("hybrid-router"),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
    )
    app.state.service = service
    app.include_router(_answers(service))
    app.include_router(_models(service))
    app.include_router(_health(service))
    app.include_router(page.routes())
    app.add_exception_handler(HTTPException, _not_found)
    app.add_middleware(
        RequestMiddleware, service=service, errors={dialect.path: dialect.error for dialect in DIALECTS}
    )
    describe(app, DIALECTS)
    return app


def _answers(service: Service) -> APIRouter:
    routes = APIRouter(tags=["answers"])

    for dialect in DIALECTS:
        routes.add_api_route(
            dialect.path,
            endpoint(service, dialect),
            methods=["POST"],
            name=dialect.name,
            description=dialect.description,
            response_class=Response,
            responses={
                200: answer_schemas(dialect),
                **error_schemas(400, 404, 413, 415, 429, 500, 503, 504, body=dialect.error_body),
            },
            openapi_extra=json_body(dialect.body),
        )

    @routes.post(
        "/v1/route",
        response_class=Response,
        responses={200: {"model": RouteObject}, **error_schemas(400, 404, 413, 415, 429, 500, 503)},
        openapi_extra=json_body(CHAT.body),
    )
    async def route(request: Request) -> Response:
        """Say which backend would answer a conversation, and why; nothing is computed."""
        return await dry_run(service, request, CHAT)

    return routes


def _models(service: Service) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get(
        "/v1/models",
        response_class=Response,
        responses={200: {"model": ModelList}, **error_schemas(500, 503)},
    )
    async def models() -> Response:
        """Which models are served."""
        return json_response(ModelList(object="list", data=[_model(service)]))

    @routes.get(
        "/v1/models/{model:path}",
        response_class=Response,
        responses={200: {"model": ModelObject}, **error_schemas(404, 500, 503)},
    )
    async def model(model: str) -> Response:
        """What one of them can do."""
        service.names.backend(model)
        return json_response(_model(service))

    return routes


def _model(service: Service) -> ModelObject:
    service.state.check()
    usable = service.state.usable
    sees = any(candidate.traits.sees_images for candidate in usable)
    return ModelObject(
        id=service.names.served,
        object="model",
        created=service.state.since,
        owned_by=TITLE,
        capabilities=["text", "image"] if sees else ["text"],
        meta=ModelMeta(
            context=max(candidate.context or 0 for candidate in usable),
            backends=[candidate.backend for candidate in usable],
        ),
    )


def _health(service: Service) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/health", response_class=Response, responses=READINESS)
    async def health() -> Response:
        """Whether requests are answered now."""
        return readiness(service.state.problem)

    @routes.get("/readyz", response_class=Response, responses=READINESS)
    async def ready() -> Response:
        """Whether requests are answered now."""
        return readiness(service.state.problem)

    @routes.get("/livez", response_class=Response, responses={200: {"model": Status}})
    async def alive() -> Response:
        """Whether the server is there at all."""
        return json_response(Status(status="ok"))

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def measured() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    return routes


async def _not_found(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    message = "this address takes another method" if error.status_code == 405 else "there is nothing here"
    response = error_response(openai_error(RequestError(message, code=code)))
    response.headers.update(error.headers or {})
    return response
