"""hybrid chat as a process: how it begins and how it ends."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli import run
from tests.conftest import ANSWER

ROOT = Path(__file__).parent.parent.parent
CHAT = [sys.executable, "-c", "from router.cli import main; main()", "chat"]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["-m", "/no/such/folder"], 4, "no model folder at '/no/such/folder'"),
        (["-i", "-"], 2, "stdin is where the questions come from"),
        (["-i", "/no/such/image.png"], 3, "'/no/such/image.png'"),
        (["--logprobs", "2"], 2, "add --json"),
        (["--temp", "3"], 2, "temperature"),
        (["--top-p", "0.9"], 2, "--top-p does nothing at temperature 0"),
        (["--backend", "gpu"], 2, "no backend is named 'gpu'"),
        (["hello"], 2, "unexpected extra argument"),
    ],
)
def test_a_chat_that_cannot_begin_says_why(play, capsys, monkeypatch, options, code, words) -> None:
    play()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n")))
    assert run(["chat", *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def start() -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    return subprocess.Popen(CHAT, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)


def read_line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        piece = process.stdout.read(1)
        assert piece, f"it ended after {line!r}"
        line += piece
    return line.decode().removesuffix("\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_piped_chat_in_mid_answer(play, number, code) -> None:
    play(fault="hang", fault_at=5)
    with start() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a\nb\n")
        first = process.stdout.read(1)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert ANSWER.startswith((first + out).decode().strip())
    assert err == (b"(stopped)\n" if number == signal.SIGINT else b"")


def test_a_signal_ends_a_chat_that_waits_for_a_question(play) -> None:
    play()
    with start() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a\n")
        assert read_line(process) == ANSWER
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143


def test_a_reader_that_leaves_ends_it_quietly(play) -> None:
    play(delay=0.05)
    with start() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"a\n")
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141
