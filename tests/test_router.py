"""The router: decide, load, answer."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from backends import Backend, BackendError, Capability, RequestError, Runtime, Traits
from backends.scripted import Script, ScriptedBackend
from router import Message, Picture, Request, Router, Sampling
from router.models import Listener, find
from router.prompt import PromptBuilder

ANSWER = "I see red, green, blue and yellow."
QUESTION = (Message.of("user", "Which colours?"),)
IMAGED = (Message.of("user", Picture(np.zeros((96, 128, 3), np.uint8)), "Which colours?"),)


def script(text: str = ANSWER, **faults: object) -> Script:
    builder = PromptBuilder.read(find().folder)
    ids = builder.tokenizer.encode(text, add_special_tokens=False).ids
    return Script((*ids, min(builder.eos)), **faults)  # type: ignore[arg-type]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, ScriptedBackend]]:
    """Put scripted backends in the places of real ones; returns those that were loaded."""

    def prepare(*names: str, failing: tuple[str, ...] = (), **faults: object) -> dict[str, ScriptedBackend]:
        loaded: dict[str, ScriptedBackend] = {}

        def load(name: str, folder: Path, runtime: Runtime) -> Backend:
            if name in failing:
                raise BackendError("its file is damaged")
            assert name not in loaded, "a backend is loaded once"
            loaded[name] = ScriptedBackend(script(**faults), vocab=1024)  # type: ignore[arg-type]
            loaded[name].name = name
            return loaded[name]

        monkeypatch.setattr("router.router.backends.names", lambda: names)
        monkeypatch.setattr(
            "router.router.backends.capability", lambda name, device: Capability(Traits(name != "genai"))
        )
        monkeypatch.setattr("router.router.backends.load", load)
        return loaded

    return prepare


def test_text_and_images_go_to_the_backends_that_fit(stage) -> None:
    loaded = stage("torch", "genai", "onnx")
    router = Router()
    text, image = router.complete(Request(QUESTION)), router.complete(Request(IMAGED))
    assert (text.stats.backend, text.decision.reason) == ("genai", "text only")
    assert (image.stats.backend, image.decision.reason) == ("onnx", "the conversation has an image")
    assert list(loaded) == ["genai", "onnx"]


def test_a_text_turn_after_an_image_turn_stays_where_images_are_seen(stage) -> None:
    stage("torch", "genai", "onnx")
    later = (*IMAGED, Message.of("assistant", "red"), Message.of("user", "And where?"))
    assert Router().complete(Request(later)).stats.backend == "onnx"


def test_deciding_loads_nothing(stage) -> None:
    loaded = stage("torch", "genai", "onnx")
    assert Router().decide(Request(IMAGED)).backend == "onnx"
    assert loaded == {}


def test_a_backend_that_does_not_load_is_passed_over_and_the_reason_says_so(stage) -> None:
    stage("torch", "genai", "onnx", failing=("onnx",))
    notices: list[str] = []
    answer = Router(listener=Listener(notice=notices.append)).complete(Request(IMAGED))
    assert notices == ["onnx did not load (its file is damaged); trying the next"]
    assert (answer.decision.backend, answer.stats.backend) == ("torch", "torch")
    assert answer.decision.reason == (
        "the conversation has an image; onnx did not load (its file is damaged)"
    )
    assert answer.decision.fallbacks == ()


def test_the_last_one_that_does_not_load_is_the_error(stage) -> None:
    stage("torch", "onnx", failing=("onnx", "torch"))
    with pytest.raises(BackendError, match="its file is damaged"):
        Router().complete(Request(IMAGED))


def test_a_named_backend_that_does_not_load_is_never_replaced(stage) -> None:
    stage("torch", "onnx", failing=("onnx",))
    with pytest.raises(BackendError, match="its file is damaged"):
        Router().complete(Request(IMAGED, backend="onnx"))


def test_the_whole_answer_is_the_stream_joined(stage) -> None:
    stage("torch")
    router = Router()
    request = Request(QUESTION, Sampling(stop=("yellow",), logprobs=1))
    chunks = list(router.stream(request))
    whole = router.complete(request)
    assert whole.text == "".join(chunk.text for chunk in chunks) == "I see red, green, blue and "
    assert whole.tokens == tuple(token for chunk in chunks for token in chunk.tokens)
    assert len(whole.logprobs) == len(whole.tokens)
    assert whole.finish == chunks[-1].finish == "stop"


def test_what_was_not_said_comes_from_the_model_and_then_from_the_built_in_defaults(stage) -> None:
    stage("torch")
    sampling = Router().answer(Request(QUESTION, Sampling(top_p=0.5))).sampling
    assert (sampling.top_p, sampling.temperature, sampling.max_tokens, sampling.top_k) == (0.5, 0.0, 64, 0)


def test_a_wrong_request_is_refused_before_anything_is_loaded(stage) -> None:
    loaded = stage("torch")
    router = Router()
    with pytest.raises(RequestError, match="temperature"):
        router.answer(Request(QUESTION, Sampling(temperature=3)))
    with pytest.raises(RequestError, match="at most"):
        router.answer(Request(QUESTION, Sampling(max_tokens=5000)))
    with pytest.raises(RequestError, match="tokens"):
        router.answer(Request((Message.of("user", "word " * 5000),)))
    assert loaded == {}


def test_an_overlong_prompt_is_refused_before_its_image_is_read(stage, monkeypatch) -> None:
    stage("torch")
    monkeypatch.setattr("router.prompt.builder.patches", lambda *_: pytest.fail("the image was read"))
    messages = (*IMAGED, Message.of("user", "word " * 5000))
    with pytest.raises(RequestError, match=r"12 of them .*4096") as raised:
        Router().answer(Request(messages))
    assert raised.value.code == "context_length_exceeded"


def test_an_answer_may_fill_the_context_and_no_more(stage) -> None:
    stage("torch")
    router = Router()
    length = len(router.answer(Request(QUESTION)).prompt.ids)
    room = 4096 - length
    assert router.answer(Request(QUESTION, Sampling(max_tokens=room))).sampling.max_tokens == room
    with pytest.raises(RequestError, match=f"at most {room}"):
        router.answer(Request(QUESTION, Sampling(max_tokens=room + 1)))


def test_pixel_limits_of_the_request_decide_how_an_image_is_read(stage) -> None:
    stage("torch")
    router = Router()
    assert router.answer(Request(IMAGED)).prompt.sizes == ((128, 96),)
    assert router.answer(Request(IMAGED, max_pixels=9216)).prompt.sizes == ((96, 64),)
    with pytest.raises(RequestError, match="min_pixels"):
        router.answer(Request(IMAGED, min_pixels=90_000))


def test_closing_a_stream_frees_its_session(stage) -> None:
    loaded = stage("torch")
    chunks = Router().stream(Request(QUESTION))
    next(chunks)
    assert loaded["torch"].open_sessions == 1
    chunks.close()
    assert loaded["torch"].open_sessions == 0


def test_a_failure_in_mid_answer_is_not_started_again_elsewhere(stage) -> None:
    loaded = stage("torch", "onnx", fault="raise", fault_at=3)
    with (
        closing(Router().stream(Request(IMAGED))) as chunks,
        pytest.raises(BackendError, match="fail here"),
    ):
        list(chunks)
    assert list(loaded) == ["onnx"]


def test_many_threads_load_a_backend_once_and_get_the_same_answer(stage) -> None:
    stage("torch", delay=0.0005)
    router = Router()
    start = threading.Barrier(8)

    def ask(_: int) -> str:
        start.wait(10)
        return router.complete(Request(QUESTION)).text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [ANSWER] * 8
