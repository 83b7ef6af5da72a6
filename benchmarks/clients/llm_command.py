"""The ``llm`` command line, with the server as one of its models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checks import ENDLESS, KEY, MODEL, SCHEMA, URL, Client, run

LLM = Path(sys.executable).with_name("llm")


class RefusedError(Exception):
    """The command ended with another code than 0."""


def configure(folder: Path) -> None:
    """Tell ``llm`` of the server, as its documentation says; and of a model that the server has not."""
    can = {"api_base": URL, "api_key_name": "hybrid", "vision": True, "supports_schema": True}
    models = [{"model_id": name, "model_name": name, **can} for name in (MODEL, "no-such-model")]
    (folder / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    os.environ["LLM_USER_PATH"] = str(folder)


def command(question: str, *more: str, model: str = MODEL, key: str = KEY) -> list[str]:
    """What is typed."""
    return [str(LLM), "prompt", "-m", model, "--key", key, *more, question]


def output(said: list[str], data: bytes | None = None) -> tuple[str, str]:
    """What the command writes to stdout and stderr."""
    done = subprocess.run(said, input=data or b"", capture_output=True, timeout=60)
    if done.returncode:
        raise RefusedError(done.stderr.decode())
    return done.stdout.decode().rstrip("\n"), done.stderr.decode()


class LLMCommand(Client):
    """``llm -m scenes``."""

    def ask(self, question: str, image: bytes | None = None, *, model: str = MODEL, key: str = KEY) -> str:
        attached = () if image is None else ("--at", "-", "image/png")
        return output(command(question, "--no-stream", *attached, model=model, key=key), image)[0]

    def stream(self, question: str) -> tuple[list[str], int, int]:
        said, told = output(command(question, "--usage"))
        found = re.search(r"(\d+) input, (\d+) output", told)
        assert found is not None, told
        return re.findall(r"\s*\S+", said), int(found[1]), int(found[2])

    def structured(self, question: str, image: bytes) -> Any:
        asked = command(question, "--schema", json.dumps(SCHEMA), "--at", "-", "image/png")
        return json.loads(output(asked, image)[0])

    def leave(self, question: str, streaming: Callable[[], None]) -> None:
        options = (
            ("max_tokens", str(ENDLESS["max_tokens"])),
            ("logit_bias", json.dumps(ENDLESS["logit_bias"])),
        )
        more = [word for option in options for word in ("-o", *option)]
        with subprocess.Popen(
            command(question, *more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as at:
            assert at.stdout is not None
            at.stdout.read(5)
            streaming()
            at.send_signal(signal.SIGINT)
            at.stdout.read()

    def status(self, error: Exception) -> int:
        found = re.search(r"Error code: (\d+)", str(error))
        return int(found[1]) if found else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        configure(Path(folder))
        run(LLMCommand())
