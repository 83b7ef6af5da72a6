"""What the README and the pages of docs/ show works as it stands."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from tests.pages import PAGES, README, ROOT, blocks, prose, quoted, section

# what each Python example prints
PRINTED = {
    "README.md": [
        r"I can name the colours and shapes of simple pictures\.\n",
        r"the conversation has an image\nI see red, green, blue and yellow\.\n\d+ tokens a second\n",
    ],
    "docs/architecture.md": [r""],
    "docs/contributing.md": [r"user\nHello, parrot!\n", r"the reference comes first\n"],
    "docs/python.md": [
        r"length genai 8\n",
        r"text only\ncancelled\n",
        r"I can name the colours and shapes of simple pictures\.\n",
        r"invalid_value, top_p: top_p must be a number above 0 and at most 1, got 2\n",
        r"torch 38 25\n(?:torch can\n|onnx can\n|genai it reads text only\n){3}",
    ],
}


def untested(pages: dict[str, str]) -> set[str]:
    """Pages whose Python blocks are not as many as what they should print."""
    return {page for page, text in pages.items() if len(blocks(text, "python")) != len(PRINTED.get(page, []))}


def test_every_python_example_is_tested() -> None:
    assert untested(PAGES) == set()
    assert set(PRINTED) <= set(PAGES)


def test_an_example_that_no_test_runs_is_noticed() -> None:
    assert untested({"docs/new.md": "```python\nprint(1)\n```\n"}) == {"docs/new.md"}


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page, printed in PRINTED.items() for number in range(len(printed))],
)
def test_the_python_examples_print_what_they_should(page: str, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks(PAGES[page], "python")[number]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PRINTED[page][number], done.stdout)


def test_a_backend_of_ones_own_takes_some_30_lines() -> None:
    pages = [block for text in PAGES.values() for block in blocks(text, "python")]
    (whole,) = (block for block in pages if "class Parrot" in block)
    own = whole[whole.index("class Parrot") : whole.index("backends.register")]
    assert len([line for line in own.splitlines() if line.strip()]) <= 30


def test_the_entry_points_are_those_that_are_read() -> None:
    import backends
    from router import policy

    (block,) = blocks(PAGES["docs/contributing.md"], "toml")
    assert set(tomllib.loads(block)["project"]["entry-points"]) == {backends.GROUP, policy.GROUP}


def test_the_two_commands_are_one_line_each_and_ci_runs_the_second() -> None:
    marked = dict(re.findall(r"<!-- (try|test) -->\n```sh\n(.*?)\n```", README, re.DOTALL))
    assert set(marked) == {"try", "test"}
    assert all("\n" not in command for command in marked.values())
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text("utf-8")


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every ``hybrid`` in the shell's examples."""
    for line in "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        words.whitespace_split, words.commenters = True, "#"
        call: list[str] | None = None
        for word in [*words, "|"]:
            if set(word) <= set("|&;"):
                if call is not None:
                    yield call
                call = None
            elif call is not None:
                call.append(word)
            elif Path(word).name == "hybrid":
                call = []


def check_command(arguments: list[str]) -> None:
    """Parse as the command line does, and run nothing; click.UsageError says what is wrong."""
    from router.cli import hybrid

    command: click.Command = hybrid
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.commands.get(name)
        if found is None:
            raise click.UsageError(f"no command is named {name}")
        command = found
    command.make_context(command.name, arguments)


SHOWN = [(page, call) for page, text in PAGES.items() for call in commands(text)]


@pytest.mark.parametrize(("page", "call"), SHOWN, ids=[" ".join(call[:3]) for _, call in SHOWN])
def test_every_command_that_is_shown_is_understood(page: str, call: list[str]) -> None:
    check_command(call)


@pytest.mark.parametrize("line", ["hybrid chat --colour red", "hybrid ask it", "ls | hybrid bench -n one"])
def test_a_command_that_is_not_understood_is_noticed(line: str) -> None:
    (call,) = commands(f"```sh\n{line}  # it's wrong\n```\n")
    with pytest.raises(click.UsageError):
        check_command(call)


def test_the_scripts_modules_and_tests_that_are_shown_exist() -> None:
    shown = "".join(block for text in PAGES.values() for block in blocks(text, "sh"))
    files = re.findall(r"(?<![\w/.])(?:\.ci|router|tests|benchmarks)/[\w./]+", shown)
    assert [name for name in files if not (ROOT / name).exists()] == []
    modules = re.findall(r"python3? -m ((?:tests|benchmarks)[\w.]*)", shown)
    assert files
    assert modules
    assert [name for name in modules if find_spec(name) is None] == []


def test_examples_show_every_command() -> None:
    from router.cli import hybrid

    assert {call[0] for _, call in SHOWN} == set(hybrid.commands)


def options(command: click.Command) -> Iterator[str]:
    yield from (option for param in command.params for option in param.opts + param.secondary_opts)
    for other in command.commands.values() if isinstance(command, click.Group) else ():
        yield from options(other)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_and_variable_that_is_named_exists(page: str) -> None:
    from router.cli import hybrid

    known = {*options(hybrid), "--help", "-h"}
    variables = {"HYBRID_" + option.lstrip("-").replace("-", "_").upper() for option in known}
    named = " ".join(quoted(PAGES[page]))
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", named)) <= known
    assert set(re.findall(r"HYBRID_[A-Z_]+\b", PAGES[page])) <= variables | {"HYBRID_HOME", "HYBRID_CONFIG"}


def test_the_chat_s_commands_are_those_there_are() -> None:
    from router.cli.chat.commands import COMMANDS

    chat = section(PAGES["docs/chat.md"], "Chat")
    assert set(re.findall(r"`/([a-z]+!?)", chat)) - {"text"} == set(COMMANDS)


def test_every_exit_code_is_listed() -> None:
    import router.cli.exit_codes as exit_codes

    codes = re.findall(r"\d+", (exit_codes.__doc__ or ""))
    listed = re.findall(r"^\| ([\d, ]+) \|", section(PAGES["docs/chat.md"], "Exit codes"), re.MULTILINE)
    assert {code for row in listed for code in re.findall(r"\d+", row)} == set(codes)


def test_every_address_of_the_server_is_listed() -> None:
    from router import Router
    from router.server import create_app

    described = create_app(Router()).openapi()["paths"]
    known = {
        (method.upper(), re.sub(r"\{.*\}", "NAME", path)) for path in described for method in described[path]
    }
    listed = set(re.findall(r"`(GET|POST) (/\S+)`", section(PAGES["docs/serve.md"], "Addresses")))
    assert listed - {("GET", "/openapi.json")} == known


def anchors(text: str) -> set[str]:
    """As GitHub makes them of titles."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path, text: str) -> list[str]:
    """The links to files and titles that are not there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", prose(text)):
        target, _, anchor = "".join(link).partition("#")
        if ":" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            broken.append("".join(link))
    return broken


LINKING = [ROOT / page for page in PAGES] + sorted((ROOT / "benchmarks").rglob("*.md"))


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text("utf-8")) == []


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    text = "[a](docs/none.md) [b](docs/chat.md#none) [c](docs/chat.md#exit-codes) [d](https://example.org)"
    assert broken_links(ROOT / "README.md", text) == ["docs/none.md", "docs/chat.md#none"]


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 180
    linked = set(re.findall(r"\]\((docs/[\w.]+)", README))
    assert {page for page in PAGES if page != "README.md"} <= linked
