"""The application: which address does what."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from backends.base import RequestError
from router.api import chat_ask, completion_ask, failure
from router.api.objects import ChatChunk, ChatCompletion, ModelList, ModelMeta, ModelObject, TextCompletion
from router.router import Router
from router.server import metrics, page
from router.server.endpoints import RouteObject, dry_run, exchange
from router.server.middleware import RequestMiddleware
from router.server.openapi import answered, describe, errors, json_body
from router.server.responses import READINESS, Status, failed, json_response, readiness
from router.server.service import Service, load
from router.server.settings import Settings

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
    app.add_middleware(RequestMiddleware, service=service)
    describe(app)
    return app


def _answers(service: Service) -> APIRouter:
    routes = APIRouter(tags=["answers"])

    @routes.post(
        "/v1/chat/completions",
        response_class=Response,
        responses={
            200: answered(ChatCompletion, ChatChunk),
            **errors(400, 404, 413, 415, 429, 500, 503, 504),
        },
        openapi_extra=json_body("ChatBody"),
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation of texts and images; with ``stream`` as server-sent events."""
        return await exchange(service, request, chat_ask)

    @routes.post(
        "/v1/completions",
        response_class=Response,
        responses={
            200: answered(TextCompletion, TextCompletion),
            **errors(400, 404, 413, 415, 429, 500, 503, 504),
        },
        openapi_extra=json_body("CompletionBody"),
    )
    async def completions(request: Request) -> Response:
        """Answer a prompt, which is read as one message of the user."""
        return await exchange(service, request, completion_ask)

    @routes.post(
        "/v1/route",
        response_class=Response,
        responses={200: {"model": RouteObject}, **errors(400, 404, 413, 415, 429, 500, 503)},
        openapi_extra=json_body("ChatBody"),
    )
    async def route(request: Request) -> Response:
        """Say which backend would answer a conversation, and why; nothing is computed."""
        return await dry_run(service, request)

    return routes


def _models(service: Service) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get(
        "/v1/models", response_class=Response, responses={200: {"model": ModelList}, **errors(500, 503)}
    )
    async def models() -> Response:
        """Which models are served."""
        return json_response(ModelList(object="list", data=[_model(service)]))

    @routes.get(
        "/v1/models/{model:path}",
        response_class=Response,
        responses={200: {"model": ModelObject}, **errors(404, 500, 503)},
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
    said = "this address takes another method" if error.status_code == 405 else "there is nothing here"
    response = failed(failure(RequestError(said, code=code)))
    response.headers.update(error.headers or {})
    return response
