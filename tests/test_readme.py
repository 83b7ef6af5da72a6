"""What the README shows works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs_and_names_the_colours() -> None:
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    reason, answer, speed = done.stdout.splitlines()
    assert reason == "the conversation has a picture"
    assert answer == "I see red, green, blue and yellow."
    assert re.fullmatch(r"\d+ tokens a second", speed)


def test_the_two_commands_are_one_line_each_and_ci_runs_the_second() -> None:
    marked = dict(re.findall(r"<!-- (try|test) -->\n```sh\n(.*?)\n```", README, re.DOTALL))
    assert set(marked) == {"try", "test"}
    assert all("\n" not in command for command in marked.values())
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("name", ["generate", "chat"])
def test_every_option_that_is_shown_exists(name: str) -> None:
    from router.cli import hybrid

    shown = set(re.findall(r"(?<!-)(--[a-z][a-z-]+)", "".join(re.findall(rf"hybrid {name}.*", README))))
    known = {option for param in hybrid.commands[name].params for option in param.opts} | {"--help"}
    assert shown
    assert shown <= known


def test_the_chat_s_commands_are_those_there_are() -> None:
    from router.cli.chat.commands import COMMANDS

    chat = README.partition("### Chat")[2].partition("\n## ")[0]
    assert set(re.findall(r"`/([a-z]+!?)", chat)) - {"text"} == set(COMMANDS)


def test_every_exit_code_is_listed() -> None:
    import router.cli.failures as failures

    codes = re.findall(r"\d+", (failures.__doc__ or ""))
    listed = re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
    assert {code for row in listed for code in re.findall(r"\d+", row)} == set(codes)
