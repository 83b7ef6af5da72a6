"""The command line, in this process and as a process of its own."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from router.cli import run
from router.cli.generate import NOTICE
from router.sampling import PRESETS
from tests.conftest import ANSWER

HYBRID = [sys.executable, "-c", "from router.cli import main; main()"]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(file)
    return file


def test_the_answer_is_on_stdout_and_nothing_else(play, capsys) -> None:
    play()
    assert run(["generate", "Which colours?"]) == 0
    assert capsys.readouterr() == (ANSWER + "\n", "")


def test_the_embedded_model_says_what_it_is_when_nobody_chose_it(play, capsys, monkeypatch) -> None:
    play()
    monkeypatch.delenv("HYBRID_MODEL")
    assert run(["generate", "Which colours?"]) == 0
    out, err = capsys.readouterr()
    assert out == ANSWER + "\n"
    assert err == NOTICE + "\n"
    assert run(["generate", "-m", "scenes", "Which colours?"]) == 0
    assert capsys.readouterr().err == ""


def test_a_held_back_answer_is_the_streamed_one(play, capsys) -> None:
    play()
    assert run(["generate", "--no-stream", "Which colours?"]) == 0
    assert capsys.readouterr().out == ANSWER + "\n"


def test_json_holds_the_whole_answer(play, capsys, image) -> None:
    play()
    assert run(["generate", "--json", "--logprobs", "2", "-i", str(image), "Which colours?"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] == ANSWER
    assert (answer["finish"], answer["backend"], answer["reason"]) == (
        "stop",
        "scripted",
        "asked for by name",
    )
    assert answer["resized"] == [[128, 96]]
    assert answer["usage"]["image_tokens"] == 12
    assert answer["usage"]["output_tokens"] == len(answer["tokens"]) == len(answer["logprobs"])
    assert all(len(score["top"]) == 2 for score in answer["logprobs"])
    assert set(answer["timings"]) == {
        "vision_seconds",
        "prefill_seconds",
        "decode_seconds",
        "tokens_per_second",
    }


def test_usage_says_what_the_answer_took(play, capsys, image) -> None:
    play(delay=0.001)
    assert run(["generate", "--usage", "-i", str(image), "Which colours?"]) == 0
    pattern = (
        r"scripted: \d+ prompt tokens, 12 of them for 1 image read at 128x96; \d+ output tokens; "
        r"first token after \d+\.\d\d s \(vision 0\.00 s\); \d+\.\d tok/s\n"
    )
    assert re.fullmatch(pattern, capsys.readouterr().err)


def test_explain_says_who_answers_and_why(play, capsys) -> None:
    play()
    assert run(["generate", "--explain", "Which colours?"]) == 0
    assert capsys.readouterr().err == "scripted: asked for by name\n"


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("argument", [[], ["-"]])
def test_the_prompt_can_come_from_stdin(play, capsys, monkeypatch, argument) -> None:
    play()
    stdin(monkeypatch, "Which colours? ☃".encode())
    assert run(["generate", *argument]) == 0
    assert capsys.readouterr().out == ANSWER + "\n"


def test_the_image_can_come_from_stdin(play, capsys, monkeypatch, image) -> None:
    play()
    stdin(monkeypatch, image.read_bytes())
    assert run(["generate", "--usage", "-i", "-", "Which colours?"]) == 0
    assert "1 image read at 128x96" in capsys.readouterr().err


def test_max_pixels_shrinks_the_image(play, capsys, image) -> None:
    play()
    assert run(["generate", "--usage", "--max-pixels", "9216", "-i", str(image), "Which colours?"]) == 0
    assert "read at 96x64" in capsys.readouterr().err


WRONG = {
    "a misspelt option": (["--tempp", "1"], 2, "No such option"),
    "a temperature out of range": (["--temp", "3"], 2, "temperature"),
    "a top_p out of range": (["--top-p", "1.5"], 2, "top_p"),
    "a number that is none": (["--top-k", "many"], 2, "'many' is not a valid integer"),
    "a filter without a temperature": (["--top-p", "0.9"], 2, "--top-p does nothing at temperature 0"),
    "an unknown preset": (["--preset", "wild"], 2, "--preset must be one of greedy, focused"),
    "two that exclude each other": (["--greedy", "--temp", "1"], 2, "--greedy excludes"),
    "a bias without a number": (["--logit-bias", "42"], 2, "ID=B"),
    "a bias of no token": (["--logit-bias", "99999999=1"], 2, "logit_bias"),
    "logprobs without json": (["--logprobs", "2"], 2, "add --json"),
    "an unknown backend": (["--backend", "gpu"], 2, "no backend is named 'gpu'"),
    "an unknown model": (["-m", "/no/such/folder"], 4, "no model folder at '/no/such/folder'"),
    "too many tokens": (["-n", "100000"], 3, "ask for at most"),
    "a missing image": (["-i", "/no/such/image.png"], 3, "/no/such/image.png"),
    "a directory for an image": (["-i", "/"], 3, "'/': the image cannot be read: Is a directory"),
    "a device for an image": (["-i", "/dev/zero"], 3, "regular file"),
    "prompt and image on stdin": (["-i", "-", "-"], 2, "stdin holds one thing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_on_stderr_and_its_exit_code(play, capsys, case) -> None:
    play()
    arguments, code, words = WRONG[case]
    assert run(["generate", *arguments, "hello"][: None if arguments[-1] != "-" else -1]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("hybrid: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "words"), [("raise", "the script says to fail here"), ("nan", "a score is nan")]
)
def test_a_backend_that_fails_leaves_what_it_said(play, capsys, fault, words) -> None:
    play(fault=fault, fault_at=5)
    assert run(["generate", "hello"]) == 5
    out, err = capsys.readouterr()
    assert out.strip()
    assert ANSWER.startswith(out.strip())
    assert words in err
    assert err.count("\n") == 1


def test_text_that_is_not_utf8_is_refused(play, capsys, monkeypatch) -> None:
    play()
    stdin(monkeypatch, b"caf\xe9")
    assert run(["generate"]) == 3
    assert "not UTF-8" in capsys.readouterr().err
    assert run(["generate", "caf\udce9"]) == 3


def test_a_time_limit_ends_an_answer_that_hangs(play, capsys) -> None:
    play(fault="hang", fault_at=3)
    assert run(["generate", "--timeout", "1", "hello"]) == 5
    out, err = capsys.readouterr()
    assert ANSWER.startswith(out.strip())  # on a busy machine all of the second may go into reading the model
    assert "--timeout" in err


def test_a_flag_wins_over_the_environment_and_that_over_the_file(play, capsys, monkeypatch, tmp_path) -> None:
    play()
    settings = tmp_path / "config" / "hybrid" / "config.toml"
    settings.parent.mkdir(parents=True)

    def length() -> int:
        assert run(["generate", "--json", *flags, "hello"]) == 0
        count: int = json.loads(capsys.readouterr().out)["usage"]["output_tokens"]
        return count

    flags: list[str] = []
    assert length() > 4
    settings.write_text("max-tokens = 4\n")
    assert length() == 4
    monkeypatch.setenv("HYBRID_MAX_TOKENS", "3")
    assert length() == 3
    flags = ["-n", "2"]
    assert length() == 2
    settings.write_text("max-tokns = 4\n")
    assert run(["generate", "hello"]) == 2
    assert "'max_tokns', which no command knows" in capsys.readouterr().err


def test_the_help_names_the_presets_there_are(capsys) -> None:
    assert run(["generate", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    assert " or ".join([", ".join([*PRESETS][:-1]), [*PRESETS][-1]]) in text


def test_help_and_the_library_import_nothing_heavy() -> None:
    heavy = (
        "torch",
        "transformers",
        "onnxruntime",
        "numpy",
        "PIL",
        "tokenizers",
        "jinja2",
        "rich",
        "prompt_toolkit",
    )
    script = (
        "import sys, router, router.cli\n"
        "commands = [], ['generate'], ['chat'], ['bench']\n"
        "assert [router.cli.run([*c, '--help']) for c in commands] == [0] * 4\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    script = (
        "import sys, router; router.Router; print([n for n in ('torch', 'onnxruntime') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_without_a_command_there_is_help(capsys) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_version_is_told(capsys) -> None:
    assert run(["--version"]) == 0
    assert re.fullmatch(r"hybrid \d+\.\d+\.\d+\n", capsys.readouterr().out)


def start(*arguments: str, **kwargs: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*HYBRID, "generate", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_hanging_answer_with_what_was_said(play, number, code) -> None:
    play(fault="hang", fault_at=5)
    with start("hello") as process:
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 1).decode()  # and nothing into a buffer
        started = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert ANSWER.startswith((first + out).strip())
    assert err == ""
    assert time.monotonic() - started < 10  # the script would hang for an hour


def test_a_signal_before_the_first_token_ends_it_too(play) -> None:
    play(fault="hang", fault_at=0)
    with start("--explain", "hello") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "scripted: asked for by name\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def test_a_reader_that_leaves_ends_it_quietly(play) -> None:
    play(delay=0.05)
    with start("hello") as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_answer_that_cannot_be_written_is_an_error(play) -> None:
    play()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*HYBRID, "generate", "hello"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 6
    assert done.stderr == "hybrid: the answer cannot be written to stdout: No space left on device\n"


def test_a_bug_is_one_line_unless_asked_for_more(play, capsys, monkeypatch) -> None:
    play()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("router.router.Router.answer", broken)
    assert run(["generate", "hello"]) == 1
    assert "internal error, ZeroDivisionError: oh" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        run(["--debug", "generate", "hello"])
