"""The command line: what each command says on stdout and on stderr, and its exit code."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from router.cli import run
from tests.record import masks
from tests.record.cli_cases import COMMANDS, Command
from tests.record.workspace import Workspace, environment, script

PROCESS = [sys.executable, "-c", "from router.cli import main; main()"]


def record(space: Workspace) -> Iterator[tuple[str, list[str]]]:
    """Each case's name and lines."""
    for command in COMMANDS:
        yield f"cli: {command.name}", list(_told(command, space))
    for name, code, err in _ended():
        yield f"cli: {name}", [f"exit code {code}", *_headed("stderr", masks.text(err, space.names))]


def _told(command: Command, space: Workspace) -> Iterator[str]:
    shown = " ".join(word if len(word) < 200 else f"{word[:20]}..." for word in command.arguments)
    yield f"$ hybrid {shown}".encode("ascii", "backslashreplace").decode()
    variables = {"HYBRID_MODEL": command.model}
    if command.script is not None:
        variables |= {"HYBRID_SCRIPT": command.script, "HYBRID_BACKEND": "scripted"}
    with environment(**variables):
        code, out, err = _run(command)
    yield f"exit code {code}"
    yield from _headed("stdout", _shown(command, out, space))
    yield from _headed("stderr", masks.text(err, space.names))
    if command.file is not None:
        told = json.loads(Path(command.file).read_text("utf-8"))
        yield from _headed(command.file, _messages(told) if "messages" in told else masks.keys(told))


def _run(command: Command) -> tuple[int, str, str]:
    """In this process, which has the libraries loaded already."""
    data = Path(command.stdin).read_bytes() if isinstance(command.stdin, str) else command.stdin
    out, err, given = (io.TextIOWrapper(io.BytesIO(data), "utf-8") for data in (b"", b"", data))
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "stdin", given):
        code = run(command.arguments)
    return code, _written(out), _written(err)


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8")


def _shown(command: Command, out: str, space: Workspace) -> list[str]:
    if command.shown == "text":
        return masks.text(out, space.names)
    told = json.loads(out)
    return masks.keys(told) if command.shown == "keys" else list(masks.json_lines(told))


def _messages(told: dict[str, Any]) -> list[str]:
    """Of a saved conversation, without most of each image."""
    lines = [json.dumps(message, ensure_ascii=False) for message in told["messages"]]
    return [re.sub(r"(;base64,.{20})[^\"]*", r"\1...", line) for line in lines]


def _headed(name: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"--- {name}"
        yield from lines


def _ended() -> Iterator[tuple[str, int, str]]:
    """Answers that end by something outside, which only a process can show: name, exit code and stderr."""
    with environment(HYBRID_MODEL="scenes", HYBRID_BACKEND="scripted", HYBRID_SCRIPT=script(delay=0.02)):
        yield "the reader leaves", *_reader_leaves()
        yield "the disk is full", *_disk_full()
    with environment(HYBRID_MODEL="scenes", HYBRID_BACKEND="scripted", HYBRID_SCRIPT=script(fault="hang")):
        for number in (signal.SIGINT, signal.SIGTERM):
            yield f"ended by {number.name}", *_signalled(number)


def _started(*arguments: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([*PROCESS, "generate", *arguments], stdout=pipe, stderr=pipe, text=True)


def _reader_leaves() -> tuple[int, str]:
    with _started("?") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        return process.wait(60), process.stderr.read()


def _disk_full() -> tuple[int, str]:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROCESS, "generate", "?"], stdout=full, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


def _signalled(number: signal.Signals) -> tuple[int, str]:
    """When it is known who answers and no token has come."""
    with _started("--explain", "?") as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
        return process.returncode, first + rest
