"""What all requests share: the router and its state, the queue, the limits, and loading the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from typing import Literal, TypeAlias

import numpy as np

from backends import names as backend_names
from backends.base import BackendError, RequestError
from router.router import Router
from router.server.access import AccessPolicy
from router.server.admission import BodyBudget, Queue
from router.server.answering import Preprocessor
from router.server.cancel import CancelScope, in_thread
from router.server.metrics import Metrics
from router.server.settings import Settings
from router.types import Candidate, Message, Picture, Request, Sampling

Phase: TypeAlias = Literal["loading", "ready", "draining"]

_MESSAGES: dict[Phase, str] = {
    "loading": "the model is being loaded; come again in a moment",
    "draining": "the server is about to end; come again in a moment",
}


class ServiceState:
    """The phase, and the requests that are under way in it."""

    def __init__(self, is_stuck: Callable[[], bool]) -> None:
        """``is_stuck``: whether a computation goes on that was told to stop."""
        self.phase: Phase = "loading"
        self.failure: BaseException | None = None  # why the model did not load
        self.usable: tuple[Candidate, ...] = ()  # backends, known once it is loaded
        self.since = int(time.time())
        self.cancel_scopes: set[CancelScope] = set()
        self._is_stuck = is_stuck

    @property
    def problem(self) -> str | None:
        """Why requests are not answered, in few words; None when they are."""
        if self.phase == "loading":
            return "Loading model"  # word for word what clients of llama.cpp look for
        if self.phase == "draining":
            return "Shutting down"
        return "A backend does not answer" if self._is_stuck() else None

    def check(self) -> None:
        """BackendError ``loading`` or ``draining``: no request can be taken now."""
        if self.phase != "ready":
            raise BackendError(_MESSAGES[self.phase], code=self.phase)

    def drain(self) -> None:
        """Take no more requests."""
        self.phase = "draining"

    def cut(self) -> None:
        """End every request that is still under way."""
        for cancel_scope in tuple(self.cancel_scopes):
            cancel_scope.stop(BackendError(_MESSAGES["draining"], code="draining"))


ALIAS = "auto"


class ModelNames:
    """One model under its own name and ``auto``, each of them also as ``NAME@BACKEND``."""

    def __init__(self, served: str, backends: Sequence[str]) -> None:
        self.served = served
        self.backends = tuple(backends)

    def backend(self, model: str, header: str | None = None) -> str | None:
        """The backend that a request names by its model or by ``x-hybrid-backend``; None: the router picks.

        RequestError ``model_not_found``: no such model is served. ``backend_not_found``: no such backend.
        """
        by_model = self._split(model)
        by_header = None if header in (None, "", ALIAS) else header
        if by_header is not None and by_header not in self.backends:
            raise RequestError(
                f"x-hybrid-backend must be {ALIAS} or one of {', '.join(self.backends)}",
                code="backend_not_found",
                param="x-hybrid-backend",
            )
        if by_model and by_header and by_model != by_header:
            raise RequestError(
                "the model and x-hybrid-backend name two backends; name one", param="x-hybrid-backend"
            )
        return by_model or by_header

    def _split(self, model: str) -> str | None:
        if model in (self.served, ALIAS):
            return None
        name, _, backend = model.rpartition("@")
        if name in (self.served, ALIAS) and backend in self.backends:
            return backend
        raise RequestError(
            f"no model is served under that name; this server has '{self.served}'",
            code="model_not_found",
            param="model",
        )


class Service:
    """A router, the settings, and the counts of what goes on; made by ``create_app``."""

    def __init__(self, router: Router, settings: Settings) -> None:
        self.router = router
        self.settings = settings
        self.names = ModelNames(settings.name or router.model.name, backend_names())
        self.access_policy = AccessPolicy(settings.bound, settings.hosts, settings.origins)
        self.queue = Queue(settings.max_concurrency, settings.max_queue)
        self.body_budget = BodyBudget(settings.max_body, settings.max_bodies)
        self.preprocessor = Preprocessor(router, settings)
        self.state = ServiceState(lambda: self.queue.stuck)
        self.metrics = Metrics(self.names.served, settings.policy)

    def retry_after(self, code: str) -> int | None:
        """Whole seconds after which to come again, for an error that passes by itself."""
        if code == "queue_full":
            return self.queue.retry_after
        return 5 if code in ("loading", "draining") else None


@asynccontextmanager
async def load(service: Service) -> AsyncGenerator[None, None]:
    """Load in a thread while the context lasts; the service's state says how it went."""
    task = asyncio.create_task(_load(service))
    try:
        yield
    finally:
        task.cancel()


async def _load(service: Service) -> None:
    router, state, backend = service.router, service.state, service.settings.backend
    try:
        await in_thread(lambda: warm_up(router, backend))
        state.usable = await in_thread(lambda: usable(router, backend))
    except Exception as failure:
        state.failure = failure
    else:
        if state.phase == "loading":
            state.phase = "ready"


def usable(router: Router, backend: str | None) -> tuple[Candidate, ...]:
    """The backends that can be asked for on this machine; one for tests only where it is named."""
    candidates = router.route(Request((Message.of("user", "Hi"),), backend=backend)).candidates
    return tuple(
        candidate
        for candidate in candidates
        if candidate.problem is None and (candidate.backend == backend or not candidate.traits.for_tests)
    )


def warm_up(router: Router, backend: str | None) -> None:
    """Load what text and images will need, and let each write a word.

    BackendError: neither can be answered, or the model is damaged.
    """
    image = Picture(np.full((64, 64, 3), 128, np.uint8))
    for parts in (("Hi",), (image, "Hi")):
        request = Request((Message.of("user", *parts),), Sampling(max_tokens=1), backend)
        try:
            chunks = router.answer(request).chunks
        except RequestError as error:
            if error.code != "unsupported_image":  # asked for by name, and it reads text only
                raise
            continue
        with closing(chunks):
            for _ in chunks:
                pass
