"""A question that is stopped from another thread, at every stage."""

import threading
from dataclasses import dataclass
from queue import SimpleQueue

import pytest

from backends.base import BackendError
from backends.scripted import ScriptedBackend, ScriptedSession
from router.cli.chat.answer import PendingAnswer
from router.router import Answer, Router
from router.types import Chunk, Message, Request

QUESTION = Request((Message.of("user", "Which colours?"),), backend="scripted")
SOON = 30  # seconds, far below the hour that the script hangs


class Slow:
    """A router that is not done with its answer before it is told."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.entered = threading.Event()
        self.released = threading.Event()

    def answer(self, request: Request) -> Answer:
        answer = self.router.answer(request)
        self.entered.set()
        assert self.released.wait(SOON)
        return answer


@dataclass
class Reader:
    """A thread that reads the chunks of a question."""

    pending: PendingAnswer

    def __post_init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.failure: BackendError | None = None
        self.more = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for chunk in self.pending.chunks():
                with self.more:
                    self.chunks.append(chunk)
                    self.more.notify()
        except BackendError as failure:
            self.failure = failure

    def wait_for(self, count: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: len(self.chunks) >= count, SOON)

    def end(self) -> None:
        self.thread.join(SOON)
        assert not self.thread.is_alive()


@pytest.fixture
def router(play) -> Router:
    play()
    return Router("scenes")


@pytest.fixture
def opened(monkeypatch) -> "SimpleQueue[ScriptedBackend]":
    """Whose sessions are opened, as soon as they are."""
    backends: SimpleQueue[ScriptedBackend] = SimpleQueue()
    open_session = ScriptedBackend.open

    def record(self: ScriptedBackend, capacity: int) -> ScriptedSession:
        session = open_session(self, capacity)
        backends.put(self)
        return session

    monkeypatch.setattr(ScriptedBackend, "open", record)
    return backends


@pytest.mark.parametrize("at", [0, 3])
def test_a_stop_ends_what_hangs_and_frees_the_session(play, opened, at) -> None:
    play(fault="hang", fault_at=at)
    reader = Reader(pending := PendingAnswer(Router("scenes"), QUESTION, None))
    backend = opened.get(timeout=SOON)
    reader.wait_for(1 + at)
    assert backend.open_sessions == 1
    assert not pending.ended.is_set()
    pending.stop()
    reader.end()
    assert pending.ended.is_set()
    assert reader.failure is not None
    assert reader.failure.code == "cancelled"
    assert len(reader.chunks) == 1 + at
    assert backend.open_sessions == 0


def test_a_stop_before_it_is_known_who_answers_computes_nothing(router) -> None:
    slow = Slow(router)
    reader = Reader(pending := PendingAnswer(slow, QUESTION, None))  # type: ignore[arg-type]
    assert slow.entered.wait(SOON)
    pending.stop()
    slow.released.set()
    reader.end()
    assert (reader.failure, [chunk.tokens for chunk in reader.chunks]) == (None, [()])
    assert pending.ended.is_set()


def test_the_next_question_waits_for_the_end_of_the_one_before(router) -> None:
    waits = threading.Event()

    class Before(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    before = Before()
    reader = Reader(pending := PendingAnswer(router, QUESTION, before))
    assert waits.wait(SOON)
    assert pending.answer is None
    before.set()
    reader.end()
    assert reader.chunks[-1].finish == "stop"


def test_a_question_that_cannot_be_answered_ends_too(play) -> None:
    play(fault="raise")
    reader = Reader(pending := PendingAnswer(Router("scenes"), QUESTION, None))
    reader.end()
    assert reader.failure is not None
    assert pending.ended.is_set()
