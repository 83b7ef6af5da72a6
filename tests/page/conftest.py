"""``hybrid serve`` as a process of its own, and Chromium before it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from router.models import find
from router.prompt import PromptBuilder
from tests.conftest import tokens_of
from tests.page.browser import ENTER, PATIENCE, Browser, browser, until

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "router" / "scenes" / "samples"
KEY = "the-tests-own-key"
MOST_BYTES = 500_000  # of an image's file
# what the script says: markup that is none, some that is, and enough to be stopped in the middle of
HOSTILE = """<img src=x onerror="document.title='owned'">"""
SCRIPT = f"""Look: {HOSTILE} and `code <b>` and **bold <i>**.

```html
<script>document.title = 'owned'</script>
```

After it {"and on " * 40}to the end."""


class Page:
    """The page in a browser, as whoever uses it."""

    def __init__(self, window: Browser, address: str) -> None:
        self.window = window
        self.address = address

    def open(self) -> None:
        """Begin anew, with nothing remembered."""
        self.window.look(1280, 800)
        if self.window.run("return location.origin") != self.address:
            self.window.open(self.address)
        self.window.run("localStorage.clear(); sessionStorage.clear()")
        self.window.open(self.address)

    def ready(self) -> None:
        until(lambda: self.window.text("#model") == "scenes", "the model's name is shown")
        self.window.complaints()  # those about a model that was not loaded yet

    def unlock(self) -> None:
        self.window.wait("document.getElementById('key').open")
        self.window.type("#key-value", KEY + ENTER)
        self.ready()

    def ask(self, question: str) -> str:
        """Type a question, send it, and wait for its whole answer."""
        self.send(question)
        return self.answer()

    def send(self, question: str) -> None:
        """Type a question and wait for its turn to begin."""
        self.window.type("#question", question)
        self.enter()

    def enter(self) -> None:
        """Send what is written, and wait for its turn to begin."""
        self.window.run("window.lastTurn = [...document.querySelectorAll('.turn')].at(-1)")
        self.window.click("#question")
        self.window.press(ENTER)
        self.window.wait("[...document.querySelectorAll('.turn')].at(-1) !== window.lastTurn")

    def answer(self) -> str:
        until(lambda: self.count(".answer") and not self.count(".answer[aria-busy=true]"), "the answer ends")
        return self.window.text(".answer .text")

    def allow(self, tokens: int) -> None:
        """Let answers be longer than the model's own limit."""
        self.window.click("summary")
        self.window.type("#max_tokens", str(tokens))

    def count(self, selector: str) -> int:
        return int(self.window.run("return document.querySelectorAll(given[0]).length", selector))

    def drop(self, *files: Path) -> None:
        for file in files:
            before = self.count("#tray li")
            self.window.drop(file)
            until(lambda: self.count("#tray li") > before, "the image is there")  # noqa: B023

    def sent(self) -> list[dict[str, Any]]:
        """The bodies that were sent since ``listen``."""
        found: list[dict[str, Any]] = self.window.run("return window.sent.map(JSON.parse)")
        return found

    def listen(self) -> None:
        self.window.run(
            "window.sent = []; const real = window.fetch;"
            "window.fetch = (to, how) => { if (how?.body) sent.push(how.body); return real(to, how); };"
        )

    def answers(self, *pieces: str) -> None:
        """Let every question be answered by a stream of these pieces, and not by the server."""
        self.window.run(
            """
            const bytes = given.map(piece => new TextEncoder().encode(piece));
            window.fetch = async () => new Response(new ReadableStream({
              start(out) { bytes.forEach(piece => out.enqueue(piece)); out.close(); }
            }), { headers: { "x-hybrid-backend": "played", "x-hybrid-route-reason": "for a test" } });
            """,
            *pieces,
        )


@contextmanager
def hybrid_serve(log: Path, *options: str, **variables: str) -> Iterator[str]:
    """The address of a server that is about to load its model."""
    command = [sys.executable, "-c", "from router.cli import main; main()", "serve", "--port", "0", *options]
    with log.open("w") as errors:
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stderr=errors)
    try:
        found = until(
            lambda: re.search(r"on (http://\S+)", _while_it_runs(server, log)), "the server's address"
        )
        yield found[1]
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _while_it_runs(server: subprocess.Popen[bytes], log: Path) -> str:
    assert server.poll() is None, log.read_text()
    return log.read_text()


@pytest.fixture(scope="session")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="session")
def scenes(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded model, on the backends that the router picks."""
    log = tmp_path_factory.mktemp("scenes") / "log"
    with hybrid_serve(log, "--max-image-bytes", str(MOST_BYTES)) as address:
        yield address


@pytest.fixture(scope="session")
def scripted(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that says SCRIPT, slowly, to whom has the key."""
    tokens = [*tokens_of(SCRIPT), min(PromptBuilder.read(find().folder).eos)]
    script = json.dumps({"tokens": tokens, "delay": 0.01})
    log = tmp_path_factory.mktemp("scripted") / "log"
    with hybrid_serve(log, "--backend", "scripted", HYBRID_SCRIPT=script, HYBRID_API_KEY=KEY) as address:
        yield address


@pytest.fixture(scope="session")
def hanging(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that says the beginning of SCRIPT and no more until it is stopped."""
    script = json.dumps({"tokens": tokens_of(SCRIPT), "fault": "hang", "fault_at": 12})
    log = tmp_path_factory.mktemp("hanging") / "log"
    with hybrid_serve(log, "--backend", "scripted", HYBRID_SCRIPT=script, HYBRID_API_KEY=KEY) as address:
        yield address


@pytest.fixture
def page(window: Browser, scenes: str) -> Page:
    """The page of the embedded model, ready to be asked."""
    found = Page(window, scenes)
    found.open()
    found.ready()
    return found


@pytest.fixture
def slow(window: Browser, scripted: str) -> Page:
    """The page of the script, which asks for a key."""
    found = Page(window, scripted)
    found.open()
    return found


@pytest.fixture
def stuck(window: Browser, hanging: str) -> Page:
    """The page of a script whose answers go on until they are stopped; its key is given."""
    found = Page(window, hanging)
    found.open()
    found.unlock()
    return found
