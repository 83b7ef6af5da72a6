"""What every client has to do against a running ``hybrid serve``.

This runs in each client's own environment, so it imports the standard library only. A client says how it
asks, streams and leaves; what is asked, and what must come, is said here. The address, the key and the
image come from the environment: OPENAI_BASE_URL, OPENAI_API_KEY, IMAGE.
"""

from __future__ import annotations

import base64
import os
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL = os.environ["OPENAI_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
IMAGE = Path(os.environ["IMAGE"])
MODEL = "scenes"
COLOURS = ["red", "green", "blue", "yellow"]
SCHEMA = {
    "title": "Seen",
    "type": "object",
    "properties": {"first": {"enum": COLOURS}, "second": {"enum": COLOURS}},
    "required": ["first", "second"],
    "additionalProperties": False,
}
# an answer that ends after half a minute, unless it is left: the ends of an answer are never picked
ENDLESS: dict[str, Any] = {"max_tokens": 3000, "logit_bias": {"1010": -100, "1012": -100}}
LEFT_SECONDS = 1.0

_TEXT = "What can you do?"
_SEEN = "Which colours do you see?"


def data_uri(data: bytes) -> str:
    """An image as clients send it."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


class Client(ABC):
    """One client library: how it asks. Images are the bytes of their files."""

    @abstractmethod
    def ask(self, question: str, image: bytes | None = None, *, model: str = MODEL, key: str = KEY) -> str:
        """A whole answer."""

    @abstractmethod
    def stream(self, question: str) -> tuple[list[str], int, int]:
        """The pieces of a streamed answer, and the tokens of the prompt and of the answer."""

    @abstractmethod
    def structured(self, question: str, image: bytes) -> Any:
        """What the client makes of an answer that keeps to SCHEMA, as a dict."""

    @abstractmethod
    def leave(self, question: str, streaming: Callable[[], None]) -> None:
        """Begin to stream an answer that is ENDLESS, call ``streaming``, and leave."""

    @abstractmethod
    def status(self, error: Exception) -> int:
        """The HTTP status for which the client's own error class stands."""

    def check_text(self) -> None:
        """An answer to a text."""
        said = self.ask(_TEXT)
        assert said.endswith("."), said

    def check_image(self) -> None:
        """An answer about an image."""
        said = self.ask(_SEEN, IMAGE.read_bytes())
        assert all(colour in said for colour in COLOURS), said

    def check_stream(self) -> None:
        """A streamed answer is the whole one in pieces, and is counted."""
        pieces, prompt, output = self.stream(_TEXT)
        assert len(pieces) > 3, pieces
        assert "".join(pieces) == self.ask(_TEXT), pieces
        assert prompt > 3, prompt
        assert output >= len(pieces) - 1, (output, len(pieces))

    def check_structured(self) -> None:
        """An answer that keeps to a schema, read by the client."""
        found = self.structured(_SEEN, IMAGE.read_bytes())
        assert set(found) == {"first", "second"}, found
        assert set(found.values()) <= set(COLOURS), found

    def check_unknown_model(self) -> None:
        """A model that is not served."""
        self._refused(404, lambda: self.ask(_TEXT, model="no-such-model"))

    def check_bad_image(self) -> None:
        """An image that is none."""
        self._refused(400, lambda: self.ask(_SEEN, IMAGE.read_bytes()[:20] + b"not an image"))

    def check_wrong_key(self) -> None:
        """A key that the server does not know."""
        self._refused(401, lambda: self.ask(_TEXT, key="wrong"))

    def check_cancel(self) -> None:
        """Leaving a stream ends the computing."""
        aborted = figure("requests_total", 'finish_reason="abort"')
        self.leave(_TEXT, _is_running)
        since = time.monotonic()
        while figure("requests_running") or figure("requests_total", 'finish_reason="abort"') != aborted + 1:
            assert time.monotonic() - since < LEFT_SECONDS, "it went on for a second"
            time.sleep(0.02)

    def _refused(self, status: int, ask: Callable[[], object]) -> None:
        said: object = None
        failed: Exception | None = None
        try:
            said = ask()
        except Exception as error:
            failed = error
        assert failed is not None, f"answered: {said!r}"
        found = self.status(failed)
        assert found == status, f"{found}, not {status}: {type(failed).__name__}: {failed}"


def run(client: Client) -> None:
    """Print one line for each check: its name, a tab, and "pass" or what went wrong."""
    for name in (name for name in vars(Client) if name.startswith("check_")):
        try:
            getattr(client, name)()
            said = "pass"
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{name.removeprefix('check_')}\t{said}", flush=True)


def figure(name: str, label: str = "") -> float:
    """The sum of one of the server's figures over its labels."""
    address = URL.removesuffix("/v1") + "/metrics"
    asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith(f"hybrid_{name}{{") and label in line
    )


def _is_running() -> None:
    assert figure("requests_running") == 1, "nothing was running before the client left"
