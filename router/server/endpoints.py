"""One request for an answer, from its body to the last byte.

::

    body -> Ask                errors in the JSON and its fields, and unknown models
    a place in the line        429 when there is none
    images, prompt, backend  every other error of the client's; then the headers of a stream go out
    a turn                     chunks come from a thread, comments keep the stream alive
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from backends.base import RequestError
from router.api import (
    ChatWriter,
    CompletionWriter,
    Envelope,
    ParsedRequest,
    ResponseWriter,
    chat_ask,
    failure,
    read,
)
from router.api.objects import Object
from router.api.parse import Document
from router.router import Answer, join
from router.server import log
from router.server.admission import SMALL
from router.server.answering import Generation
from router.server.cancel import CancelScope, ClientLeftError, in_thread
from router.server.fetch import fetch_all
from router.server.metrics import RequestMetrics
from router.server.responses import DONE, PING, EventStream, event, json_response, routed, without_paths
from router.server.service import Service
from router.types import Candidate, Chunk, Estimate, Route

Understand: TypeAlias = Callable[[Document], ParsedRequest]


async def exchange(service: Service, request: Request, understand: Understand) -> Response:
    """The answer to a body that ``understand`` reads; RequestError or BackendError: there is none."""
    service.state.check()
    meter = RequestMetrics(service.metrics)
    with service.bodies.hold() as body:
        data = await body.read(request.headers, request.receive)
        ask, backend = await understood(service, request, data, understand)
        del data
        talk = _handler(service, request, ask, meter)
        try:
            answer = await talk.prepare(backend)
        except BaseException as error:
            talk.close(error)
            raise
    return await talk.respond(answer, request.headers.get("x-hybrid-debug") == "1")


async def understood(
    service: Service, request: Request, data: bytes, understand: Understand
) -> tuple[ParsedRequest, str | None]:
    """What a body asks for, and the backend it names; refused for what can be said before a place is free."""
    ask = understand(read(data)) if len(data) <= SMALL else await in_thread(lambda: understand(read(data)))
    backend = service.names.backend(ask.model, request.headers.get("x-hybrid-backend"))
    return _within(ask, service), backend or service.settings.backend


def _within(ask: ParsedRequest, service: Service) -> ParsedRequest:
    """``ask`` within the limits for images. RequestError: too many, or to be read too large."""
    settings = service.settings
    if len(ask.sources) > settings.images.max_images:
        raise RequestError(
            f"the conversation has {len(ask.sources)} images; at most {settings.images.max_images} "
            "are read in one request",
            code="too_many_images",
            param="messages",
        )
    most = settings.max_pixels or settings.images.useful_pixels
    for name in ("min_pixels", "max_pixels"):
        asked = getattr(ask, name)
        if asked is not None and not 1 <= asked <= most:
            raise RequestError(
                f"{name} must be from 1 to {most}, got {asked}", param=f"mm_processor_kwargs.{name}"
            )
    return ask if ask.max_pixels is not None else replace(ask, max_pixels=settings.max_pixels)


def _handler(service: Service, request: Request, ask: ParsedRequest, meter: RequestMetrics) -> _Handler:
    place = service.line.enter()
    watches = service.state.watches
    watch = CancelScope(request.receive, service.settings.request_timeout, watches.discard)
    watches.add(watch)
    return _Handler(service, ask, watch, Generation(place, watch, meter), meter, request.state.log)


@dataclass(frozen=True)
class _Handler:
    """A request that has a place in the line."""

    service: Service
    ask: ParsedRequest
    watch: CancelScope
    run: Generation
    meter: RequestMetrics
    told: MutableMapping[str, Any]  # what the log will say of it

    async def prepare(self, backend: str | None) -> Answer:
        """The answer about to be given."""
        return await self.run.prepare(self._made(backend))

    async def _made(self, backend: str | None) -> Answer:
        fetched = await fetch_all(self.ask.sources, self.service.settings)
        return await self.service.preparing.answer(self.ask, backend, fetched, self.run.place)

    async def respond(self, answer: Answer, debug: bool) -> Response:
        """The answer, as a stream or whole."""
        envelope = Envelope(
            self.service.names.served,
            answer.prompt,
            self.service.router.piece,
            self.ask.include_usage,
            answer.decision if debug else None,
        )
        form: ResponseWriter = ChatWriter(envelope) if self.ask.form == "chat" else CompletionWriter(envelope)
        headers = routed(answer.decision, self.ask.ignored)
        if self.ask.stream:
            return EventStream(self._events(form), headers, lambda: self.close(ClientLeftError()))
        return json_response(await self._whole(form, answer), headers)

    async def _events(self, form: ResponseWriter) -> AsyncGenerator[bytes, None]:
        """A stream never lies: it ends with a reason and [DONE], or with an error."""
        error: BaseException | None = None
        try:
            for found in form.opening():
                yield event(found)
            async with aclosing(self.run.chunks(self.service.settings.ping_interval)) as chunks:
                async for chunk in chunks:
                    for piece in _pieces(form, chunk):
                        yield piece
            yield DONE
        except ClientLeftError as left:
            error = left
        except Exception as failed:
            error = failed
            log.note(self.told, failed)
            yield event(failure(failed).body)
        finally:
            self.close(error)

    async def _whole(self, form: ResponseWriter, answer: Answer) -> Any:
        error: BaseException | None = None
        try:
            chunks = [chunk async for chunk in self.run.chunks() if chunk is not None]
            return form.whole(join(chunks, answer.decision))
        except BaseException as failed:
            error = failed
            raise
        finally:
            self.close(error)

    def close(self, error: BaseException | None) -> None:
        """End what still goes on, and say in the log what it was; once, whoever comes first."""
        if self.run.closed:
            return
        self.run.close()
        self.meter.ended(_finish(error))
        self.told.update(self.meter.figures())


def _pieces(form: ResponseWriter, chunk: Chunk | None) -> list[bytes]:
    return [PING] if chunk is None else [event(found) for found in form.chunk(chunk)]


def _finish(error: BaseException | None) -> str | None:
    """What the metrics call the end of an answer; None: what its last chunk says."""
    if error is None:
        return None
    return "abort" if isinstance(error, ClientLeftError) else getattr(error, "code", "error")


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
        prompt_tokens=route.situation.prompt_tokens,
        image_tokens=route.situation.image_tokens,
        max_tokens=route.situation.max_tokens,
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
