"""A server as an engine: what it is asked, what its events are worth, and how it fails."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from backends.base import BackendError, RequestError
from router.bench.http_engine import ServerConfig, ServerEngine, base_url, events
from router.types import Message, Picture
from tests.server.loopback_server import DONE, HELLO, event, piece, serving, usage

HI = [Message.of("user", "Hi")]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HYBRID_API_KEY", "OPENAI_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_an_answer_is_timed_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.0, 12.5, 13.5, 14.0])
    with serving() as server:
        engine = ServerEngine(ServerConfig(server.url))
        monkeypatch.setattr("router.bench.http_engine.clock", lambda: next(ticks))
        answer = engine.answer(HI, 4)
    sample = answer.sample
    assert answer.text == "Hello!"
    assert (sample.first_token_seconds, sample.decode_seconds, sample.total_seconds) == (2.0, 1.5, 4.0)
    assert sample.gaps == (0.5, 1.0)
    assert (sample.prompt_tokens, sample.output_tokens, sample.cached_tokens) == (20, 4, 6)
    assert sample.prefill_seconds is None
    assert engine.facts.peak_bytes is None


def test_it_is_asked_for_a_greedy_stream_of_a_fixed_length_with_images_in_place() -> None:
    image = Picture(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    with serving() as server:
        ServerEngine(ServerConfig(server.url, "large")).answer(
            [Message.of("system", "Be brief."), Message.of("user", image, "What?")], 7
        )
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert {name: asked[name] for name in ("model", "max_tokens", "temperature", "ignore_eos", "stream")} == {
        "model": "large",
        "max_tokens": 7,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    assert asked["stream_options"] == {"include_usage": True}
    system, user = asked["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    image_part, text_part = user["content"]
    assert text_part == {"type": "text", "text": "What?"}
    data = image_part["image_url"]["url"].removeprefix("data:image/png;base64,")
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(sent, image.pixels)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        ServerEngine(ServerConfig(server.url)).answer(HI, 4)
        monkeypatch.setenv("OPENAI_API_KEY", "theirs")
        ServerEngine(ServerConfig(server.url)).answer(HI, 4)
        monkeypatch.setenv("HYBRID_API_KEY", "ours")
        ServerEngine(ServerConfig(server.url)).answer(HI, 4)
    assert server.keys == [None, "Bearer theirs", "Bearer ours"]


def test_without_a_count_events_with_text_are_tokens() -> None:
    with serving([piece("a"), piece(""), piece("b"), DONE]) as server:
        sample = ServerEngine(ServerConfig(server.url)).answer(HI, 4).sample
    assert (sample.output_tokens, sample.prompt_tokens, len(sample.gaps)) == (2, 0, 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (429, "answers 429: the queue is full"),
        ([piece("a")], "ended before it said that it was done"),
        ([piece("a"), event(error={"message": "out of memory"})], "says in its stream: out of memory"),
        (["data: {nonsense\n\n"], "cannot be read"),
        (["data: [1]\n\n"], "says in its stream"),
        ([usage(3, 0), DONE], "without any text"),
    ],
)
def test_a_server_that_fails_says_how(answer: list[str] | int, words: str) -> None:
    with serving(answer) as server, pytest.raises(BackendError, match=words):
        ServerEngine(ServerConfig(server.url)).answer(HI, 4)


def test_a_server_that_is_not_there_or_is_none_is_told_of() -> None:
    with serving(HELLO) as server:
        url = server.url
        with pytest.raises(BackendError, match="has no model 'other'; it lists small, large"):
            ServerEngine(ServerConfig(url, "other"))
    with pytest.raises(BackendError, match=r"cannot be reached: .*refused"):
        ServerEngine(ServerConfig(url))
    with serving(models={"hello": 1}) as server, pytest.raises(BackendError, match="lists no models"):
        ServerEngine(ServerConfig(server.url))
    with serving() as server, pytest.raises(BackendError, match="/v2/models answers 404"):
        ServerEngine(ServerConfig(server.url + "/v2"))


def test_addresses() -> None:
    for url in ("http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/chat/completions"):
        assert base_url(url) == "http://h:8000/v1"
    assert base_url("https://h/openai/v3/") == "https://h/openai/v3"
    for url in ("h:8000", "ftp://h", "http://", "file:///etc/passwd"):
        with pytest.raises(RequestError, match="--url wants an address"):
            base_url(url)


def test_only_lines_of_data_are_events() -> None:
    lines = [b": hello\n", b"\n", b"event: x\n", b'data: {"a": 1}\n', b'data:{"a": 2}\r\n', b"data: [DONE]\n"]
    assert list(events(iter(lines))) == [{"a": 1}, {"a": 2}]
