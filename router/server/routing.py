"""``POST /v1/route``: what would be decided about a chat completion's body, without answering it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from router.api import chat_ask
from router.api.objects import Object
from router.server.endpoints import understood
from router.server.fetch import fetch_all
from router.server.responses import json_response, routed, without_paths
from router.server.service import Service
from router.types import Candidate, Estimate, Route


class EstimateObject(Object):
    """How long an answer would take, by what was measured on this machine."""

    load_seconds: float
    first_token_seconds: float
    seconds: float


class CandidateObject(Object):
    """One backend: whether it could answer, and how long that would take."""

    backend: str
    refusal: str | None
    loaded: bool
    estimate: EstimateObject | None


class RouteObject(Object):
    """A decision, and what it was made from."""

    backend: str
    reason: str
    fallbacks: list[str]
    candidates: list[CandidateObject]
    prompt_tokens: int
    image_tokens: int
    max_tokens: int


async def dry_run(service: Service, request: Request) -> Response:
    """The decision; RequestError as the answer itself would raise."""
    service.state.check()
    with service.bodies.hold() as body:
        data = await body.read(request.headers, request.receive)
        ask, backend = await understood(service, request, data, chat_ask)
        fetched = await fetch_all(ask.sources, service.settings)
        route = await service.preparing.route(ask, backend, fetched, service.line.inside)
    return json_response(_object(route), routed(route.decision, ask.ignored))


def _object(route: Route) -> RouteObject:
    return RouteObject(
        backend=route.decision.backend,
        reason=without_paths(route.decision.reason),
        fallbacks=list(route.decision.fallbacks),
        candidates=[_candidate(found) for found in route.candidates],
        prompt_tokens=route.prompt_tokens,
        image_tokens=route.image_tokens,
        max_tokens=route.max_tokens,
    )


def _candidate(found: Candidate) -> CandidateObject:
    return CandidateObject(
        backend=found.backend,
        refusal=found.refusal and without_paths(found.refusal),
        loaded=found.loaded,
        estimate=None if found.estimate is None else _estimate(found.estimate),
    )


def _estimate(found: Estimate) -> EstimateObject:
    return EstimateObject(
        load_seconds=found.load_seconds,
        first_token_seconds=found.first_token_seconds,
        seconds=found.seconds,
    )
