"""Requests become prompts: pictures are read and texts tokenized, one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from backends.base import RequestError
from router.api import Ask
from router.api.pictures import Source
from router.images import read_picture
from router.router import Answer, Router
from router.server.line import Place
from router.server.settings import Settings
from router.server.threads import in_thread
from router.types import Picture, Request, Route

# Of waiting for others before it is decided who answers a request that came alone: those that come at once
# are to be decoded together from the first on
GATHER_SECONDS = 0.03
Fetched = Mapping[Source, bytes]  # pictures that came from elsewhere


class Preparing:
    """One request at a time, and none while those that wait for a turn hold too much memory."""

    def __init__(self, router: Router, settings: Settings) -> None:
        self.held = 0  # bytes of prepared pictures
        self._router = router
        self._settings = settings
        self._one = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()

    async def answer(self, ask: Ask, backend: str | None, fetched: Fetched, place: Place) -> Answer:
        """See ``Router.answer``; what it holds is counted until ``place`` is left."""
        async with self._one:
            await self._room.wait()
            # of others depends who answers a text, and nothing else
            is_open = backend is None and not ask.sources
            if is_open and not place.others and self._settings.max_concurrency > 1:
                await asyncio.sleep(GATHER_SECONDS)
            others = place.others
            answer = await in_thread(
                lambda: self._router.answer(self._request(ask, backend, fetched), others)
            )
        patches = answer.prompt.patches
        self._count(size := 0 if patches is None else patches.nbytes)
        place.ends.callback(self._count, -size)
        return answer

    async def route(self, ask: Ask, backend: str | None, fetched: Fetched, others: int) -> Route:
        """See ``Router.route``."""
        async with self._one:
            return await in_thread(lambda: self._router.route(self._request(ask, backend, fetched), others))

    def _request(self, ask: Ask, backend: str | None, fetched: Fetched) -> Request:
        limits = self._settings.pictures

        def read(source: Source) -> Picture:
            data = fetched[source] if source in fetched else source.decoded(limits.max_bytes)
            try:
                return read_picture(data, limits)
            except RequestError as error:
                raise RequestError(str(error), code=error.code, param=source.param) from None

        return ask.request(read, backend)

    def _count(self, size: int) -> None:
        self.held += size
        if self.held <= self._settings.max_prepared:
            self._room.set()
        else:
            self._room.clear()
