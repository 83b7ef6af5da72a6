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


PRINTED = [
    r"I can name the colours and shapes of simple pictures\.\n",
    r"the conversation has an image\nI see red, green, blue and yellow\.\n\d+ tokens a second\n",
    r"I can name the colours and shapes of simple pictures\.\n",
    r"user\nHello, parrot!\n",
]


def test_every_python_example_is_tested() -> None:
    assert len(blocks("python")) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_the_python_examples_print_what_they_should(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("python")[number]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PRINTED[number], done.stdout)


def test_a_backend_of_ones_own_takes_some_30_lines() -> None:
    (whole,) = (block for block in blocks("python") if "class Parrot" in block)
    own = whole[whole.index("class Parrot") : whole.index("backends.register")]
    assert len([line for line in own.splitlines() if line.strip()]) <= 30


def test_the_two_commands_are_one_line_each_and_ci_runs_the_second() -> None:
    marked = dict(re.findall(r"<!-- (try|test) -->\n```sh\n(.*?)\n```", README, re.DOTALL))
    assert set(marked) == {"try", "test"}
    assert all("\n" not in command for command in marked.values())
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("name", ["generate", "chat", "serve", "bench"])
def test_every_option_that_is_shown_exists(name: str) -> None:
    from router.cli import hybrid

    shown = set(re.findall(r"(?<!-)(--[a-z][a-z-]+)", "".join(re.findall(rf"hybrid {name} .*", README))))
    known = {option for param in hybrid.commands[name].params for option in param.opts} | {"--help"}
    assert shown
    assert shown <= known


def test_the_chat_s_commands_are_those_there_are() -> None:
    from router.cli.chat.commands import COMMANDS

    chat = README.partition("### Chat")[2].partition("\n## ")[0]
    assert set(re.findall(r"`/([a-z]+!?)", chat)) - {"text"} == set(COMMANDS)


def test_every_exit_code_is_listed() -> None:
    import router.cli.exit_codes as failures

    codes = re.findall(r"\d+", (failures.__doc__ or ""))
    listed = re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
    assert {code for row in listed for code in re.findall(r"\d+", row)} == set(codes)
