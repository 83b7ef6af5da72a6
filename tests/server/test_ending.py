"""How a service begins and ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from backends.base import BackendError, RequestError
from router import Message, Picture, Request
from router.cli import run
from router.cli.serve import serve as command
from router.server import listen
from router.server.settings import Settings
from tests.server.conftest import ANSWER, ASK, post, read_all, read_until, script, until
from tests.server.test_queue import STREAM, WHOLE

SERVE = [sys.executable, "-c", "from router.cli import main; main()", "serve"]


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]


def test_while_the_model_loads_requests_are_sent_away(start, monkeypatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr("router.server.service.warm_up", lambda *_: gate.wait(30))
    served = start(wait=False)
    for path in ("/health", "/readyz"):
        response = served.client.get(path)
        assert response.status_code == 503
        assert response.json() == {
            "error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}
        }
    assert served.client.get("/livez").status_code == 200
    for response in (served.ask(), served.ask("/v1/route"), served.client.get("/v1/models")):
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "loading"
        assert int(response.headers["retry-after"]) >= 1
        assert "x-should-retry" not in response.headers
    gate.set()
    until(lambda: served.client.get("/health").status_code == 200)


def test_a_model_that_does_not_load_ends_the_service(start, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise BackendError("weights.data is damaged", code="model_invalid")

    monkeypatch.setattr("router.server.service.warm_up", fail)
    served = start(wait=False)
    served.thread.join(10)
    assert not served.thread.is_alive()
    assert isinstance(served.service.state.failure, BackendError)


def test_draining_finishes_what_runs_and_takes_nothing_more(start, gate) -> None:
    gate.set()
    served = start(drain_timeout=20)
    served.plays()
    gate.clear()
    with served.connected(post(json.dumps({**ASK, "stream": True}).encode())) as running:
        head = read_until(running, b"assistant")
        with served.connected(post(json.dumps(ASK).encode())) as waiting:
            until(lambda: served.service.queue.inside == 2)
            served.server.servers[0].get_loop().call_soon_threadsafe(served.server.end, 15)
            until(lambda: served.service.state.phase == "draining")
            refused = served.ask()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert "retry-after" in refused.headers
            assert served.client.get("/readyz").json()["error"]["message"] == "Shutting down"
            gate.set()
            assert b"[DONE]" in head + read_all(running)
            assert ANSWER.encode() in read_all(waiting)
    served.thread.join(10)
    assert not served.thread.is_alive()
    assert served.server.signal == 15


def test_what_does_not_end_in_time_is_told_so(start) -> None:
    served = start(drain_timeout=0.3)
    served.plays(delay=0.05)
    with served.connected(post(STREAM)) as running, served.connected(post(WHOLE)) as waiting:
        read_until(running, b"content")
        until(lambda: served.service.queue.inside == 2)
        served.server.servers[0].get_loop().call_soon_threadsafe(served.server.end, 15)
        data, whole = read_all(running), read_all(waiting)
    assert events(data)[-1]["error"]["code"] == "draining"
    assert b"[DONE]" not in data
    assert whole.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after" in whole
    served.thread.join(10)
    assert not served.thread.is_alive()
    assert served.backend.open_sessions == 0


class Process:
    """``hybrid serve`` as a process of its own."""

    def __init__(self, *arguments: str, **script_fields: Any) -> None:
        played = {"tokens": script().tokens, **script_fields}
        environment = {**os.environ, "HYBRID_SCRIPT": json.dumps(played)}
        self.child = subprocess.Popen(
            [*SERVE, "-m", "scenes", "--backend", "scripted", "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.child.stderr is not None
        self.first = self.child.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.first)
        assert found, self.first
        self.port = int(found[1])

    def ready(self) -> None:
        with httpx2.Client(base_url=f"http://127.0.0.1:{self.port}") as client:
            until(lambda: client.get("/health").status_code == 200, 30)

    @contextmanager
    def streaming(self) -> Iterator[Any]:
        """A stream that has begun."""
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        body = {**ASK, "stream": True, "ignore_eos": True, "max_tokens": 2000}
        with httpx2.stream("POST", url, json=body, timeout=30) as response:
            lines = response.iter_lines()
            next(lines)
            yield lines

    def told(self, words: str) -> None:
        """Wait until it writes a line with these words."""
        assert self.child.stderr is not None
        assert any(words in line for line in self.child.stderr), f"it ended without {words!r}"

    def end(self) -> tuple[int, str, str]:
        out, err = self.child.communicate(timeout=30)
        return self.child.returncode, out, err


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*arguments: str, **script_fields: Any) -> Process:
        started.append(Process(*arguments, **script_fields))
        return started[-1]

    yield begin
    for one in started:
        one.child.kill()
        one.child.communicate()


def test_a_signal_ends_an_idle_service_and_its_number_is_the_exit_code(process) -> None:
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        one = process()
        assert one.first == f"hybrid: serving scenes on http://127.0.0.1:{one.port}\n"
        one.ready()
        one.child.send_signal(number)
        found, out, err = one.end()
        assert (found, out) == (code, "")
        assert "Traceback" not in err
        assert "draining" in err


def test_a_signal_while_it_writes_cuts_the_answer_after_its_time(process) -> None:
    one = process("--drain-timeout", "0.5", delay=0.05)
    one.ready()
    with one.streaming() as lines:
        one.child.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "draining"
    assert one.end()[0] == 143


def test_a_second_signal_ends_at_once(process) -> None:
    one = process("--drain-timeout", "60", delay=0.05)
    one.ready()
    with one.streaming() as lines:
        one.child.send_signal(signal.SIGINT)
        one.told("draining")  # or the system would make one signal of the two
        one.child.send_signal(signal.SIGINT)
        with suppress(httpx2.HTTPError):
            list(lines)
        assert one.end()[0] == 130


@pytest.mark.parametrize("fault", ["hang"])
def test_a_signal_ends_a_service_whose_model_hangs_while_it_loads(process, fault: str) -> None:
    one = process("--drain-timeout", "0.2", fault=fault)
    one.child.send_signal(signal.SIGTERM)
    assert one.end()[0] == 143


def test_a_model_that_fails_is_one_line_and_the_documented_code(process) -> None:
    one = process(fault="raise")
    code, _, err = one.end()
    assert code == 5
    assert err.splitlines()[-1] == "hybrid: the script says to fail here"
    assert "Traceback" not in err


def test_the_service_of_the_embedded_model_listens_where_it_is_told(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(["serve", "--host", "0.0.0.0"]) == 2
    assert "HYBRID_API_KEY" in capsys.readouterr().err
    assert run(["serve", "--host", "::", "--api-key", "x"]) == 2
    assert "everyone on this machine" in capsys.readouterr().err
    assert run(["serve", "--api-key-file", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    assert run(["serve", "--api-key-file", str(empty)]) == 2
    assert "no key" in capsys.readouterr().err
    assert run(["serve", "-m", str(tmp_path / "nowhere")]) == 4
    assert run(["serve", "--policy", "best"]) == 2
    capsys.readouterr()


def test_a_port_that_is_taken_is_told(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with listen(Settings(), 0) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "-m", "scenes", "--port", str(port)]) == 5
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err


def test_every_option_of_the_service_arrives(monkeypatch, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("abc\n")
    seen: list[Any] = []
    monkeypatch.setattr("router.server.create_app", lambda router, settings: seen.append((router, settings)))
    monkeypatch.setattr("router.server.listen", lambda settings, port: pytest.fail(f"port {port}"))
    monkeypatch.setenv("HYBRID_API_KEY", "def")
    arguments = f"""
        --model scenes --backend onnx --policy fastest --host 127.0.0.2 --port 7 --served-model-name mine
        --max-concurrency 2 --max-queue 3 --request-timeout 4 --drain-timeout 5 --sse-ping-interval 6
        --max-image-bytes 7 --max-image-pixels 8 --max-images 9 --max-pixels 10 --ctx-size 11
        --allowed-hosts a.example,b.example --cors-origins https://c.example --api-key-file {keys}
        --allowed-image-hosts D.example,e.example:81""".split()
    with pytest.raises(pytest.fail.Exception, match="port 7"):
        command.main(arguments, standalone_mode=False)
    ((router, settings),) = seen
    assert router.context == 11
    assert settings == Settings(
        name="mine", backend="onnx", policy="fastest", bound="127.0.0.2", max_concurrency=2, max_queue=3,
        request_timeout=4, drain_timeout=5, ping_interval=6, max_pixels=10,
        images=type(settings.images)(7, 8, 9), hosts=("a.example", "b.example"),
        origins=("https://c.example",), image_hosts=("d.example", "e.example:81"), keys=settings.keys,
    )  # fmt: skip
    assert len(settings.keys) == 2
    named = {option for param in command.params for option in param.opts if option.startswith("--")}
    elsewhere = [
        "--offline",
        "--no-export",
        "--memory",
        "--log-json",
        "--device",
        "--dtype",
        "--vision",
        "--threads",
        "--api-key",
    ]
    assert named == {*arguments[::2], *elsewhere}


def test_fewer_tokens_of_context_than_the_models(start, monkeypatch) -> None:
    served = start()
    monkeypatch.setattr(served.service.router, "context", 40)
    refused = served.ask(max_tokens=41)
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert "40" in refused.json()["error"]["message"]
    assert served.ask("/v1/route").json()["max_tokens"] < 40


def test_more_and_larger_images_where_that_is_wanted(monkeypatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("router.server.create_app", lambda router, settings: seen.append((router, settings)))
    monkeypatch.setattr("router.server.listen", lambda *_: pytest.fail("listening"))
    arguments = ["-m", "scenes", "--max-images", "9", "--max-image-bytes", "60000000"]
    with pytest.raises(pytest.fail.Exception, match="listening"):
        command.main(arguments, standalone_mode=False)
    ((router, settings),) = seen
    assert settings.max_body > 80_000_000
    image = Picture(np.zeros((32, 32, 3), np.uint8))
    assert router.route(Request((Message.of("user", *[image] * 9),))).situation.image_tokens >= 9
    with pytest.raises(RequestError, match="at most 9"):
        router.route(Request((Message.of("user", *[image] * 10),)))
