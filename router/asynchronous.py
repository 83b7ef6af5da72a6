"""Answers for a program that lives in an event loop: the model computes in threads, the loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from router.types import Chunk, Chunks


async def iterate(chunks: Chunks, cancel: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
    """The same chunks. Closing this generator, or cancelling its task, ends the computing within a second."""
    step: asyncio.Future[Chunk | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            # a thread cannot be cancelled: it is told to stop below, and waited for
            chunk = await asyncio.shield(step)
            if chunk is None:
                return
            yield chunk
    finally:
        cancel()
        if step is not None and not step.done():
            await asyncio.wait({step})
            step.exception()  # that it was cancelled is no news
        chunks.close()
