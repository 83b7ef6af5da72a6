"""hybrid chat, driven by a pipe over the scripted backend."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.base import RequestError
from router.cli import run
from router.cli.chat.lines import Lines
from router.router import Router
from router.types import Message, Picture, Request
from tests.conftest import ANSWER


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "my image.png"
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(file)
    return file


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that the router is asked to answer; the first is the chat's own, at its start."""
    seen: list[Request] = []
    answer = Router.answer

    def record(self: Router, request: Request):
        seen.append(request)
        return answer(self, request)

    monkeypatch.setattr(Router, "answer", record)
    return seen


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys):
    """Chat by these lines; the answers, and what is said besides."""

    def prepare(*lines: str | bytes, options: tuple[str, ...] = ()) -> tuple[str, str]:
        data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert run(["chat", *options]) == 0
        out, err = capsys.readouterr()
        return out, err

    return prepare


def turns(messages: tuple[Message, ...]) -> list[str]:
    """Who said what, images by their size."""

    def shown(part: str | Picture) -> str:
        return part if isinstance(part, str) else str(part.size)

    return [" ".join([f"{said.role}:", *map(shown, said.parts)]) for said in messages]


def test_each_line_is_answered_on_stdout_and_nothing_else_is_said(play, chat) -> None:
    play()
    assert chat("Which colours?", "", "And now?") == (f"{ANSWER}\n{ANSWER}\n", "")


def test_each_question_comes_with_all_that_was_said_before(play, chat, requests) -> None:
    play()
    chat("Which?", "//clear", "And now?", options=("-s", "Be short."))
    assert turns(requests[-1].messages) == [
        "system: Be short.",
        "user: Which?",
        f"assistant: {ANSWER}",
        "user: /clear",
        f"assistant: {ANSWER}",
        "user: And now?",
    ]
    assert len(requests) == 4


def test_images_belong_to_the_next_question_alone(play, chat, requests, image) -> None:
    play()
    small = image.with_name("small.png")
    Image.new("RGB", (32, 32)).save(small)
    chat("a", f"/image {image}", "/image small.png", "b", "c", options=("-i", str(small)))
    said = [turn for turn in turns(requests[-1].messages) if turn.startswith("user")]
    assert said == ["user: (32, 32) a", "user: (128, 96) (32, 32) b", "user: c"]


def test_an_image_is_told_with_its_size_and_cost(play, chat, image) -> None:
    play()
    _, err = chat(f"/image '{image}'", "/set max_pixels=9216", f"/image {image}")
    first, _, second = err.splitlines()
    assert first == "my image.png: 128x96, 12 tokens of the next question"
    assert second == "my image.png: 128x96, 6 tokens of the next question"


def test_clear_and_drop_forget_what_they_say(play, chat, requests, image) -> None:
    play()
    chat("a", f"/image {image}", "/drop", "b", "/clear", "c", options=("-s", "Be short.", "--temp", "0.5"))
    assert turns(requests[-2].messages)[-1] == "user: b"
    assert turns(requests[-1].messages) == ["system: Be short.", "user: c"]
    assert requests[-1].sampling.temperature == 0.5


WRONG = {
    "an unknown command": ("/foo", "no command is named '/foo'"),
    "a missing image": ("/image gone.png", "'gone.png': the image cannot be read: No such file"),
    "no image": ("/image talk.json", "is not a PNG, JPEG"),
    "one image of two": ("/image my\\ image.png gone.png", "'gone.png'"),
    "a device": ("/image /dev/zero", "is not a regular file"),
    "an unknown setting": ("/set heat=1", "no setting is named 'heat'"),
    "a wrong value": ("/set temperature=hot", "temperature must be"),
    "an unknown backend": ("/backend gpu", "no backend is named 'gpu'"),
    "a conversation that is none": ("/load talk.json", "'talk.json': it is not JSON of a conversation"),
    "a conversation that is not there": ("/load gone.json", "'gone.json' cannot be read: No such file"),
    "a file that is there": ("/save talk.json", "'talk.json' is there already; /save! replaces it"),
    "a question that is too long": ("why " * 5000, "together may be 4096: shorten the prompt"),
    "a text that is not UTF-8": (b"caf\xe9", "a line is not UTF-8 (byte 3 of it)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_and_changes_nothing(play, chat, requests, image, case) -> None:
    play()
    line, words = WRONG[case]
    Path("talk.json").write_text("hello")
    _, err = chat("a", f"/image {image}", line, "b")
    told, wrong = err.splitlines()
    assert told.startswith("my image.png")
    assert words in wrong
    assert wrong.startswith("hybrid: ")
    assert wrong.endswith("(the question is not kept; /clear starts over)") is ("too long" in case)
    assert turns(requests[-1].messages) == ["user: a", f"assistant: {ANSWER}", "user: (128, 96) b"]
    assert Path("talk.json").read_text() == "hello"


def test_an_answer_that_fails_leaves_what_it_said_and_drops_the_question(play, chat, requests) -> None:
    play(fault="raise", fault_at=5)
    out, err = chat("a", "b")
    said = out.splitlines()
    assert len(said) == 2
    assert all(text and ANSWER.startswith(text) for text in said)
    assert err == "hybrid: the script says to fail here (the question is not kept)\n" * 2
    assert turns(requests[-1].messages) == ["user: b"]


def test_a_time_limit_ends_an_answer_and_the_chat_goes_on(play, chat) -> None:
    play(fault="hang", fault_at=3)
    out, err = chat("a", "/drop", options=("--timeout", "0.5"))
    assert ANSWER.startswith(out.strip())
    failure, after = err.splitlines()
    assert failure == "hybrid: stopped after 0.5 s, as --timeout says (the question is not kept)"
    assert after == "no image waits for the next question"


def test_images_that_cannot_be_answered_about_are_refused_at_once(play, chat, requests, image) -> None:
    play()
    _, err = chat(*[f"/image {image}"] * 9, "/set max_pixels=", "a")
    assert err.splitlines()[8] == "hybrid: the conversation has 9 images; at most 8 are read in one request"
    assert len(requests[-1].messages[-1].images) == 8
    huge = image.with_name("huge.png")
    Image.new("L", (3200, 3200)).save(huge)
    _, err = chat("/set max_pixels=20000000", "/image huge.png", "/image huge.png")
    assert "(10000 of them images)" in err
    assert err.endswith("; /set max_pixels=N reads images smaller\n")


def test_a_backend_is_checked_at_once_and_takes_effect(play, chat, requests, image) -> None:
    play()
    _, err = chat("/backend auto", "/backend scripted", "a")
    auto, named = err.splitlines()
    assert re.match(r"\w+: text only", auto)
    assert named == "scripted: asked for by name"
    assert requests[-1].backend == "scripted"


def test_settings_take_effect_and_are_listed(play, chat, requests) -> None:
    play()
    _, err = chat("/set max_tokens=3", "/set seed=7", "a", "/set seed=", "/set")
    lines = err.splitlines()
    assert lines[0].split() == ["max_tokens", "3", "(set", "here)"]
    assert "(cut after 3 tokens; /set max_tokens=N changes that)" in lines
    assert requests[-1].sampling.seed == 7
    assert [line for line in lines[-17:] if "set here" in line] == [lines[0]]


def test_usage_and_explain_come_with_each_answer(play, chat) -> None:
    play()
    _, err = chat("a", "b", options=("--usage", "--explain"))
    decision, usage = (
        "scripted: asked for by name",
        r"scripted: \d+ prompt tokens; \d+ output tokens; .* tok/s",
    )
    assert re.fullmatch(rf"({decision}\n{usage}\n){{2}}", err)


def test_json_is_a_line_for_each_answer(play, chat) -> None:
    play()
    out, err = chat("a", "b", "/set logprobs=1", "c", options=("--json",))
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["text"] for answer in answers] == [ANSWER] * 3
    assert answers[1]["usage"]["prompt_tokens"] > answers[0]["usage"]["prompt_tokens"]
    assert [bool(answer["logprobs"]) for answer in answers] == [False, False, True]
    assert err.split() == ["logprobs", "1", "(set", "here)"]


def test_a_held_back_answer_is_the_streamed_one(play, chat) -> None:
    play()
    assert chat("a", options=("--no-stream",)) == (f"{ANSWER}\n", "")


def test_stats_has_a_row_for_each_answer_and_one_for_all(play, chat, image) -> None:
    play(delay=0.001)
    _, err = chat("/stats", "a", "/stats", f"/image {image}", "b", "/stats", "/clear", "/stats")
    nothing, rest = err.split("\n", 1)
    assert nothing == "nothing was answered yet"
    assert rest.endswith("nothing was answered yet\n")
    cells = [line.split() for line in rest.splitlines()]
    first, second, total = [row for row in cells if row[:1] in (["1"], ["2"], ["all"])][-3:]
    assert max(map(len, rest.splitlines())) <= 80
    images = [row[row.index("s") - 3] for row in (first, second, total)]
    assert images == ["0", "12", "12"]
    prompts = [int(row[row.index("s") - 4]) for row in (first, second, total)]
    assert prompts[0] + prompts[1] == prompts[2]


def test_what_is_saved_is_loaded_and_goes_on(play, chat, requests, image) -> None:
    play()
    chat(f"/image {image}", "a", "b", "/save my talk.json", options=("-s", "Be short."))
    before = requests[-1].messages
    _, err = chat("z", "/load my talk.json", "c")
    assert err == "5 messages and 1 image from my talk.json\n"
    after = requests[-1].messages
    assert turns(after) == [*turns(before), f"assistant: {ANSWER}", "user: c"]
    assert np.array_equal(after[1].images[0].pixels, before[1].images[0].pixels)


def test_save_says_what_it_wrote_and_what_it_left_out(play, chat, image) -> None:
    play()
    _, err = chat("a", f"/image {image}", "/save talk.json", "/save! talk.json")
    pattern = r"2 messages in \S+/talk.json \(\d+ B\); images that wait are left out"
    assert all(re.fullmatch(pattern, line) for line in err.splitlines()[1:])
    assert len(json.loads(Path("talk.json").read_text())["messages"]) == 2


def test_a_backslash_at_the_end_of_a_line_goes_on_in_the_next(play, chat, requests) -> None:
    play()
    chat("one\\", "/two \\\\", "three\\")
    assert [turns(request.messages)[-1] for request in requests[1:]] == [
        "user: one\n/two \\\\",
        "user: three\\",
    ]


def test_exit_leaves_and_the_rest_is_not_read(play, chat) -> None:
    play()
    assert chat("a", "/exit", "b") == (f"{ANSWER}\n", "")


def test_lines_that_cannot_be_read_do_not_hide_the_next(monkeypatch) -> None:
    data = b"x" * (9 << 20) + b"\nnext\r\nlast"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    lines = Lines()
    with pytest.raises(RequestError, match="longer than 8 MiB"):
        lines.read(0)
    assert [lines.read(0), lines.read(0), lines.read(0)] == ["next", "last", None]


def test_a_flag_wins_over_the_environment_and_that_over_the_file(play, chat, monkeypatch, tmp_path) -> None:
    play()
    settings = tmp_path / "config" / "hybrid" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("max-tokens = 4\nusage = true\n")
    assert "4 output tokens" in chat("a")[1]
    monkeypatch.setenv("HYBRID_MAX_TOKENS", "3")
    assert "3 output tokens" in chat("a")[1]
    assert "2 output tokens" in chat("a", options=("-n", "2"))[1]
