import json
import os
import signal
from pathlib import Path

import pytest

from router.models import find
from router.prompt import PromptBuilder

ANSWER = "I see red, green, blue and yellow."


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Let tests interrupt processes also where a shell runs them in the background, deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory):
    """Exports made by tests, those of child processes too, go where nobody else keeps theirs."""
    folder: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HYBRID_")]:
            patch.delenv(name)
        patch.setenv("HYBRID_HOME", str(folder))
        yield folder


def tokens_of(text: str) -> list[int]:
    ids: list[int] = PromptBuilder.read(find().folder).tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch):
    """Make every command answer a text by the scripted backend."""

    def prepare(text: str = ANSWER, **script: object) -> None:
        eos = min(PromptBuilder.read(find().folder).eos)
        monkeypatch.setenv("HYBRID_SCRIPT", json.dumps({"tokens": [*tokens_of(text), eos], **script}))
        monkeypatch.setenv("HYBRID_BACKEND", "scripted")
        monkeypatch.setenv("HYBRID_MODEL", "scenes")

    return prepare
