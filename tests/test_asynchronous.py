"""Answers in an event loop."""

import asyncio
import time
from contextlib import aclosing

import pytest

from backends import BackendError, RequestError
from router import Request, Router, Sampling
from tests.test_router import ANSWER, IMAGED, QUESTION, stage

__all__ = ["stage"]  # a fixture


def test_the_answer_is_the_same_as_without_a_loop(stage) -> None:
    stage("torch", "onnx")
    router, request = Router(), Request(IMAGED, Sampling(logprobs=1))

    async def ask() -> tuple[list[str], object]:
        return [chunk.text async for chunk in router.astream(request)], await router.acomplete(request)

    pieces, whole = asyncio.run(ask())
    assert "".join(pieces) == ANSWER
    alone = router.complete(request)
    assert (whole.text, whole.tokens, whole.logprobs) == (alone.text, alone.tokens, alone.logprobs)
    assert whole.decision == alone.decision


def test_the_loop_goes_on_while_the_model_computes(stage) -> None:
    stage("torch", delay=0.02)
    router, ticks = Router(), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def ask() -> None:
        ticking = asyncio.create_task(tick())
        answers = await asyncio.gather(*(router.acomplete(Request(QUESTION)) for _ in range(4)))
        ticking.cancel()
        assert [answer.text for answer in answers] == [ANSWER] * 4

    asyncio.run(ask())
    assert ticks > 20


def test_closing_the_stream_frees_its_session(stage) -> None:
    loaded = stage("torch")
    router = Router()

    async def ask() -> None:
        async with aclosing(router.astream(Request(QUESTION))) as chunks:
            async for _ in chunks:
                assert loaded["torch"].open_sessions == 1
                break

    asyncio.run(ask())
    assert loaded["torch"].open_sessions == 0


@pytest.mark.parametrize("whole", [True, False])
def test_cancelling_the_task_ends_a_prefill_that_hangs(stage, whole: bool) -> None:
    loaded = stage("torch", fault="hang", fault_at=0)
    router = Router()

    async def ask() -> None:
        if whole:
            await router.acomplete(Request(QUESTION))
        async for _ in router.astream(Request(QUESTION)):
            pass

    async def give_up() -> None:
        task = asyncio.create_task(ask())
        while not loaded or not loaded["torch"].open_sessions:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = time.monotonic()
    asyncio.run(give_up())
    assert time.monotonic() - started < 60  # the script would hang for an hour
    assert loaded["torch"].open_sessions == 0


def test_errors_come_as_they_are(stage) -> None:
    stage("torch", fault="raise", fault_at=2)
    router = Router()
    with pytest.raises(RequestError, match="temperature"):
        asyncio.run(router.acomplete(Request(QUESTION, Sampling(temperature=3))))
    with pytest.raises(BackendError, match="fail here"):
        asyncio.run(router.acomplete(Request(QUESTION)))
