"""A backend as an engine: what is timed, and that it is asked for exactly what is measured."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends import Prefilled, Prompt, RequestError, Runtime, Traits, machine
from backends.base import Logits
from backends.scripted import Script, ScriptedBackend, ScriptedSession
from router.bench.engine import Facts, LocalConfig, LocalEngine, Sample, TimedAnswer
from router.bench.process import measure
from router.bench.workloads import Job, Size, Workload, Writer
from router.models import find
from router.types import Message, Picture
from tests.bench.benches import SEEN, TEXT

FOLDER = find().folder
TOKENS = (40, 41, 42, 1012, 43, 44, 45, 46)  # the fourth would end an answer


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedSession(ScriptedSession):
    """Reads in 2 s, sees in half of one of them, decodes in 0.25 s, and takes 7 s to close."""

    def prefill(self, prompt: Prompt) -> Prefilled:
        self.backend.clock.now += 2.0
        vision_seconds = 0.5 if prompt.patches is not None else 0.0
        return replace(super().prefill(prompt), vision_seconds=vision_seconds, cached_tokens=3)

    def decode(self, token: int) -> Logits:
        self.backend.clock.now += 0.25
        return super().decode(token)

    def close(self) -> None:
        self.backend.clock.now += 7.0
        super().close()


class TimedBackend(ScriptedBackend):
    clock: Clock

    def open(self, capacity: int) -> TimedSession:
        session = TimedSession(self)
        self.sessions.add(session)
        return session


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> LocalEngine:
    clock = Clock()

    def load(name: str, folder: Path, runtime: Runtime) -> TimedBackend:
        clock.now += 5.0
        backend = TimedBackend(Script(TOKENS), 1024)
        backend.clock = clock
        return backend

    monkeypatch.setattr("backends.load", load)
    monkeypatch.setattr("time.perf_counter", clock)
    return LocalEngine(LocalConfig("timed", FOLDER, FOLDER, Runtime(), "int3"))


def test_every_part_of_an_answer_is_timed(engine: LocalEngine) -> None:
    sample = engine.answer([Message.of("user", "Hello")], 6).sample
    assert sample == Sample(
        prompt_tokens=len(engine.builder.plan((Message.of("user", "Hello"),)).ids),
        output_tokens=6,  # the end token does not end it
        first_token_seconds=2.0,
        decode_seconds=1.25,
        total_seconds=2.0 + 1.25 + 7.0,
        gaps=(0.25,) * 4,  # the last one would hold the closing too
        cached_tokens=3,
        prefill_seconds=2.0,
    )
    assert engine.facts.load_seconds == 5.0
    assert (engine.facts.numbers, engine.facts.device) == ("int3", "cpu")


def test_images_are_told_apart_from_text(engine: LocalEngine) -> None:
    image = Picture(np.zeros((128, 96, 3), np.uint8))
    sample = engine.answer([Message.of("user", image, image, "Hello")], 2).sample
    assert (sample.vision_seconds, sample.patches) == (0.5, 2 * 6 * 8)
    engine.backend.traits = Traits(sees_images=False)
    with pytest.raises(RequestError, match="it reads text only"):
        engine.answer([Message.of("user", image, "Hello")], 2)


def test_what_does_not_fit_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(RequestError, match="ask for at most"):
        engine.answer([Message.of("user", "Hello")], 5000)


class Echo:
    """Answers with the number of messages, and notes who asks at the same time."""

    def __init__(self, peak: int | None = 1, streams: int = 1) -> None:
        self.facts = Facts(peak_bytes=peak)
        self.asked: list[list[Message]] = []
        self.barrier = threading.Barrier(streams, timeout=60)

    def answer(self, messages: list[Message], output_tokens: int) -> TimedAnswer:
        self.asked.append(list(messages))
        self.barrier.wait()
        return TimedAnswer(f"answer {len(self.asked)}", SEEN)


def test_a_follow_up_is_asked_after_the_first_answer_and_its_images_are_not_encoded_again() -> None:
    echo = Echo()
    job = Writer(None).job(Workload(5, images=1, size=Size(8, 8), follow_up=True))
    measurement = measure(echo, job)
    first, second = echo.asked
    assert first == list(job.conversations[0])
    assert second[:1] == first
    assert [message.role for message in second] == ["user", "assistant", "user"]
    assert (second[1].parts, second[2].parts) == (("answer 1",), (job.question,))
    assert [sample.patches for sample in measurement.samples] == [0]


def test_streams_run_at_the_same_time() -> None:
    echo = Echo(streams=3)
    measurement = measure(echo, Writer(None).job(Workload(5, prompt_tokens=8, streams=3)))
    assert len(measurement.samples) == len(echo.asked) == 3  # one after the other they would wait for ever
    assert measurement.seconds > 0


def test_the_peak_is_that_of_the_turn_and_none_where_another_process_computes() -> None:
    job = Job(TEXT, ((Message.of("user", "Hello"),),))
    held = measure(Echo(), job).peak_bytes
    assert held is not None
    assert held > 10_000_000
    assert measure(Echo(peak=None), job).peak_bytes is None


@pytest.mark.skipif(machine.peak_bytes() is None, reason="this system does not tell the peak")
def test_a_peak_that_is_past_is_forgotten() -> None:
    big = np.ones(60_000_000, np.uint8)
    machine.reset_peak()
    before = machine.peak_bytes()
    del big
    machine.reset_peak()
    after = machine.peak_bytes()
    assert before is not None
    assert after is not None
    assert before - after > 40_000_000
    more = np.ones(60_000_000, np.uint8)
    again = machine.peak_bytes()
    assert again is not None
    assert again - after > 40_000_000
    del more
