"""Loading the model while the service already listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing

import numpy as np

from backends.base import Capability, RequestError
from router.router import Router
from router.server.service import Service
from router.server.threads import in_thread
from router.types import Message, Picture, Request, Sampling

FOR_TESTS = "scripted"  # a backend that is usable everywhere and only meant by whom names it


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


def usable(router: Router, backend: str | None) -> Mapping[str, Capability]:
    """The backends that can be asked for on this machine."""
    candidates = router.route(Request((Message.of("user", "Hi"),), backend=backend)).candidates
    return {
        found.backend: found.capability
        for found in candidates
        if found.capability.problem is None and (found.backend != FOR_TESTS or backend == FOR_TESTS)
    }


def warm_up(router: Router, backend: str | None) -> None:
    """Load what text and pictures will need, and let each write a word.

    BackendError: neither can be answered, or the model is damaged.
    """
    picture = Picture(np.full((64, 64, 3), 128, np.uint8))
    for parts in (("Hi",), (picture, "Hi")):
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
