"""A server in a thread, on a free port of this machine; a script plays the model."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from backends.base import Runtime
from backends.scripted import Script, ScriptedBackend, ScriptedSession
from router import Router
from router.models import find
from router.prompt import PromptBuilder
from router.server import Settings, create_app, listen, make_server
from router.server.service import Service

ANSWER = "I see red, green, blue and yellow."
BUILDER = PromptBuilder.read(find().folder)
ASK = {"model": "scenes", "messages": [{"role": "user", "content": "Which colours?"}]}


def script(text: str = ANSWER, **how: Any) -> Script:
    """Says ``text`` and ends; see `Script` for how."""
    ids = BUILDER.tokenizer.encode(text, add_special_tokens=False).ids
    return Script((*ids, min(BUILDER.eos)), **how)


def until(condition: Callable[[], object], seconds: float = 20.0) -> float:
    """Wait until ``condition`` holds; returns how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it never came to that"
        time.sleep(0.005)
    return time.monotonic() - start


@dataclass
class Served:
    """A running server, and what a test may look at inside it."""

    service: Service
    loaded: list[ScriptedBackend]
    server: Any
    thread: threading.Thread
    port: int
    client: httpx2.Client

    @property
    def backend(self) -> ScriptedBackend:
        return self.loaded[0]

    def plays(self, text: str = ANSWER, **how: Any) -> None:
        """What the model says from now on."""
        self.backend.script = script(text, **how)

    def ask(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx2.Response:
        return self.client.post(path, json={**ASK, **fields})

    def idle(self) -> bool:
        return self.service.queue.inside == 0 and self.backend.open_sessions == 0

    @contextmanager
    def connected(self, data: bytes = b"", receive_buffer: int | None = None) -> Iterator[socket.socket]:
        """A connection of one's own, with ``data`` sent over it."""
        with socket.socket() as own:
            if receive_buffer is not None:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            own.settimeout(20)
            own.connect(("127.0.0.1", self.port))
            own.sendall(data)
            yield own


def post(body: bytes, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    """A request as it is sent."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode() + body


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes, or cuts the connection off."""
    data = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while piece := connection.recv(65536):
            data += piece
    return data


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """What comes until ``wanted`` has."""
    data = b""
    while wanted not in data:
        piece = connection.recv(65536)
        assert piece, f"the server closed after {data!r}"
        data += piece
    return data


@contextmanager
def loading() -> Iterator[list[ScriptedBackend]]:
    """The scripted backends that are loaded meanwhile."""
    loaded: list[ScriptedBackend] = []
    load = ScriptedBackend.load

    def listed(_: type[ScriptedBackend], folder: Path, runtime: Runtime) -> ScriptedBackend:
        loaded.append(load(folder, runtime))
        return loaded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedBackend, "load", classmethod(listed))
        yield loaded


def before_each_step(patch: pytest.MonkeyPatch, wait: Callable[[], object]) -> None:
    """Have every script call ``wait`` before each of its tokens."""

    def waiting(step: Callable[[ScriptedSession, Any], Any]) -> Callable[[ScriptedSession, Any], Any]:
        def waited(session: ScriptedSession, argument: Any) -> Any:
            wait()
            return step(session, argument)

        return waited

    for name in ("prefill", "decode"):
        patch.setattr(ScriptedSession, name, waiting(getattr(ScriptedSession, name)))


@contextmanager
def serving(wait: bool = True, **settings: Any) -> Iterator[Served]:
    """A server with these settings, one answer at a time; its model is loaded unless ``wait`` is False."""
    chosen = Settings(**{"backend": "scripted", "max_concurrency": 1, **settings})
    app = create_app(Router(find()), chosen)
    listener = listen(chosen, 0)
    port = listener.getsockname()[1]
    server = make_server(app)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    with ExitStack() as ends:
        loaded = ends.enter_context(loading())
        thread.start()
        client = ends.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
        served = Served(app.state.service, loaded, server, thread, port, client)
        try:
            until(lambda: server.started)
            if wait:
                until(lambda: served.service.state.phase == "ready")
            yield served
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def words() -> Iterator[None]:
    """The script with which a backend is loaded; tests change it where they need another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_SCRIPT", json.dumps({"tokens": script().tokens}))
        yield


@pytest.fixture(scope="module")
def shared(words: None) -> Iterator[Served]:
    """One server for the tests of a module."""
    with serving(ping_interval=0.2) as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    """The module's server, playing the usual answer; idle again after the test."""
    shared.plays()
    yield shared
    until(shared.idle)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every script waits here before each of its tokens, until this is set."""
    opened = threading.Event()

    def wait() -> None:
        assert opened.wait(30)

    before_each_step(monkeypatch, wait)
    yield opened
    opened.set()


@pytest.fixture
def start(words: None) -> Iterator[Callable[..., Served]]:
    """Starts servers with settings of the test's own."""
    with ExitStack() as ends:
        yield lambda **settings: ends.enter_context(serving(**settings))
