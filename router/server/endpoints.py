"""One request for an answer, from its body to the last byte.

::

    body -> ParsedRequest      errors in the JSON and its fields, and unknown models
    a slot in the queue        429 when there is none
    images, prompt, backend    every other error of the client's; then the headers of a stream go out
    a turn                     chunks come from a thread, what keeps a connection alive between them

What a body and an answer look like, the dialect says; nothing here knows one by name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from backends.base import RequestError
from router.api.dialect import Dialect, ResponseWriter
from router.api.parse import read_document
from router.api.request import ParsedRequest
from router.api.response import Envelope, Object
from router.router import Answer, join
from router.server import log
from router.server.admission import SMALL
from router.server.answering import Generation
from router.server.cancel import CancelScope, ClientLeftError, in_thread
from router.server.fetch import fetch_all
from router.server.metrics import RequestMetrics
from router.server.responses import EventStream, json_response, routing_headers, without_paths
from router.server.service import Service
from router.types import Candidate, Chunk, Estimate, Route


def endpoint(service: Service, dialect: Dialect) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """What answers at the dialect's path; its RequestError or BackendError say that there is no answer."""

    async def answered(request: Request) -> Response:
        return await _answer(service, request, dialect)

    return answered


async def _answer(service: Service, request: Request, dialect: Dialect) -> Response:
    service.state.check()
    metrics = RequestMetrics(service.metrics)
    with service.body_budget.hold() as body:
        data = await body.read(request.headers, request.receive)
        parsed, backend = await read_request(service, request, data, dialect)
        del data
        handler = _handler(service, request, dialect, parsed, metrics)
        try:
            prepared = await handler.prepare(backend)
        except BaseException as error:
            handler.close(error)
            raise
    return await handler.respond(prepared, request.headers.get("x-hybrid-debug") == "1")


async def read_request(
    service: Service, request: Request, data: bytes, dialect: Dialect
) -> tuple[ParsedRequest, str | None]:
    """What a body asks for, and the backend it names.

    RequestError: whatever can be said before there is a slot.
    """

    def read() -> ParsedRequest:
        return dialect.read(read_document(data))

    parsed = read() if len(data) <= SMALL else await in_thread(read)
    backend = service.names.backend(parsed.model, request.headers.get("x-hybrid-backend"))
    return _within_limits(parsed, service), backend or service.settings.backend


def _within_limits(parsed: ParsedRequest, service: Service) -> ParsedRequest:
    """The request with the server's limit for images. RequestError: too many, or to be read too large."""
    settings = service.settings
    if len(parsed.sources) > settings.images.max_images:
        raise RequestError(
            f"the conversation has {len(parsed.sources)} images; at most {settings.images.max_images} "
            "are read in one request",
            code="too_many_images",
            param="messages",
        )
    most = settings.max_pixels or settings.images.useful_pixels
    for name, pixels in (("min_pixels", parsed.min_pixels), ("max_pixels", parsed.max_pixels)):
        if pixels is not None and not 1 <= pixels <= most:
            raise RequestError(
                f"{name} must be from 1 to {most}, got {pixels}", param=f"mm_processor_kwargs.{name}"
            )
    return parsed if parsed.max_pixels is not None else replace(parsed, max_pixels=settings.max_pixels)


def _handler(
    service: Service, request: Request, dialect: Dialect, parsed: ParsedRequest, metrics: RequestMetrics
) -> _Handler:
    slot = service.queue.enter()
    cancel_scopes = service.state.cancel_scopes
    cancel_scope = CancelScope(request.receive, service.settings.request_timeout, cancel_scopes.discard)
    cancel_scopes.add(cancel_scope)
    generation = Generation(slot, cancel_scope, metrics)
    return _Handler(service, dialect, parsed, generation, metrics, request.state.log_fields)


@dataclass(frozen=True)
class _Handler:
    """A request that has a slot in the queue."""

    service: Service
    dialect: Dialect
    parsed: ParsedRequest
    generation: Generation
    metrics: RequestMetrics
    log_fields: MutableMapping[str, Any]

    async def prepare(self, backend: str | None) -> Answer:
        """The answer about to be given."""
        return await self.generation.prepare(self._prepared(backend))

    async def _prepared(self, backend: str | None) -> Answer:
        fetched = await fetch_all(self.parsed.sources, self.service.settings)
        return await self.service.preprocessor.answer(self.parsed, backend, fetched, self.generation.slot)

    async def respond(self, answer: Answer, debug: bool) -> Response:
        """The answer, as a stream or whole."""
        envelope = Envelope(
            self.service.names.served,
            answer.prompt,
            self.service.router.piece,
            self.parsed,
            answer.decision if debug else None,
        )
        writer = self.dialect.writer(envelope)
        headers = routing_headers(answer.decision, self.parsed.ignored)
        if self.parsed.stream:
            media_type = self.dialect.framing.media_type
            return EventStream(
                self._events(writer), media_type, headers, lambda: self.close(ClientLeftError())
            )
        return json_response(await self._whole(writer, answer), headers)

    async def _events(self, writer: ResponseWriter) -> AsyncGenerator[bytes, None]:
        """A stream never lies: it ends with a reason and what says that it is done, or with an error."""
        framing = self.dialect.framing
        error: BaseException | None = None
        try:
            for item in writer.opening():
                yield framing.event(item)
            async with aclosing(self.generation.chunks(self.service.settings.ping_interval)) as chunks:
                async for chunk in chunks:
                    for event in self._chunk_events(writer, chunk):
                        yield event
            yield framing.done
        except ClientLeftError as client_left:
            error = client_left
        except Exception as failure:
            error = failure
            log.add_failure(self.log_fields, failure)
            for item in writer.failed(self.dialect.error(failure)):
                yield framing.event(item)
        finally:
            self.close(error)

    def _chunk_events(self, writer: ResponseWriter, chunk: Chunk | None) -> list[bytes]:
        framing = self.dialect.framing
        if chunk is None:
            return [framing.keep_alive]
        return [framing.event(item) for item in writer.chunk(chunk)]

    async def _whole(self, writer: ResponseWriter, answer: Answer) -> Object:
        error: BaseException | None = None
        try:
            chunks = [chunk async for chunk in self.generation.chunks() if chunk is not None]
            return writer.whole(join(chunks, answer.decision))
        except BaseException as failure:
            error = failure
            raise
        finally:
            self.close(error)

    def close(self, error: BaseException | None) -> None:
        """End what still goes on, and say in the log what it was; once, whoever comes first."""
        if self.generation.closed:
            return
        self.generation.close()
        self.metrics.on_end(_finish(error))
        self.log_fields.update(self.metrics.log_fields())


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


async def dry_run(service: Service, request: Request, dialect: Dialect) -> Response:
    """The decision about a body of ``dialect``; RequestError as the answer itself would raise."""
    service.state.check()
    with service.body_budget.hold() as body:
        data = await body.read(request.headers, request.receive)
        parsed, backend = await read_request(service, request, data, dialect)
        fetched = await fetch_all(parsed.sources, service.settings)
        route = await service.preprocessor.route(parsed, backend, fetched, service.queue.inside)
    return json_response(_object(route), routing_headers(route.decision, parsed.ignored))


def _object(route: Route) -> RouteObject:
    return RouteObject(
        backend=route.decision.backend,
        reason=without_paths(route.decision.reason),
        fallbacks=list(route.decision.fallbacks),
        candidates=[_candidate(candidate) for candidate in route.candidates],
        prompt_tokens=route.situation.prompt_tokens,
        image_tokens=route.situation.image_tokens,
        max_tokens=route.situation.max_tokens,
    )


def _candidate(candidate: Candidate) -> CandidateObject:
    return CandidateObject(
        backend=candidate.backend,
        refusal=candidate.refusal and without_paths(candidate.refusal),
        loaded=candidate.loaded,
        estimate=None if candidate.estimate is None else _estimate(candidate.estimate),
    )


def _estimate(estimate: Estimate) -> EstimateObject:
    return EstimateObject(
        load_seconds=estimate.load_seconds,
        first_token_seconds=estimate.first_token_seconds,
        seconds=estimate.seconds,
    )
