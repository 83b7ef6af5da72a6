"""hybrid chat at a terminal: a real one, as far as the process can tell."""

import json
import re
import signal
import stat
import termios
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ANSWER
from tests.terminal import ALT_ENTER, CTRL_C, CTRL_D, TAB, UP, Terminal, terminal


@pytest.fixture(autouse=True)
def kept_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "chat-history"


def test_a_chat_with_an_answer_that_is_stopped(play) -> None:
    play(delay=0.2)
    with terminal("--usage") as chat:
        chat.type("Which colours?\r")
        assert ANSWER in chat.wait_for("tok/s\n")
        chat.wait_for(">")
        chat.type("And again?\r")
        chat.wait_for("I see")
        chat.type(CTRL_C)
        stopped = chat.wait_for(r"\(stopped\)")
        assert "yellow" not in stopped
        assert "tok/s" not in stopped
        chat.wait_for(">")
        chat.type("Once more?\r")
        assert ANSWER in chat.wait_for("tok/s\n")
        chat.wait_for(">")
        chat.type("/stats\r")
        table = chat.wait_for(r"all [^\n]*\n")
        rows = [line.split() for line in table.splitlines() if re.match(r" *\d ", line)]
        assert [row[0] for row in rows] == ["1", "2", "3"]
        assert "(stopped)" in table
        chat.wait_for(">")
        chat.type("/exit\r")
        assert chat.end() == 0


def saved(chat: Terminal, file: Path) -> list[str]:
    """The user's questions so far, by way of /save."""
    chat.type(f"/save {file}\r")
    chat.wait_for(r"messages in[^)]*\)")
    chat.wait_for(">")
    messages = json.loads(file.read_text())["messages"]
    return [message["content"] for message in messages if message["role"] == "user"]


def ask(chat: Terminal, typed: str) -> None:
    chat.type(typed)
    chat.wait_for(re.escape(ANSWER))
    chat.wait_for(">")


@pytest.mark.parametrize(
    ("typed", "question"),
    [
        ("one\\\rtwo\\\\\r", "one\ntwo\\\\"),
        (f"one{ALT_ENTER}two\r", "one\ntwo"),
        ("\x1b[200~one\n  two\r\n\nthree\x1b[201~ four\r", "one\n  two\n\nthree four"),
        ("//clear\r", "/clear"),
        ("two\x01one \r", "one two"),  # Ctrl-A
    ],
)
def test_a_question_may_have_lines_and_be_edited(play, tmp_path, typed, question) -> None:
    play()
    with terminal() as chat:
        ask(chat, typed)
        assert saved(chat, tmp_path / "talk.json") == [question]


def test_what_was_typed_is_there_in_the_next_chat_for_its_owner_alone(play, tmp_path, kept_elsewhere) -> None:
    play()
    with terminal() as chat:
        ask(chat, "first\\\rquestion\r")
        ask(chat, "second question\r")
        chat.type(CTRL_D)
        assert chat.end() == 0
    assert stat.S_IMODE(kept_elsewhere.stat().st_mode) == 0o600
    with terminal() as chat:
        chat.type(UP + UP)
        chat.wait_for("first")
        ask(chat, "?\r")
        assert saved(chat, tmp_path / "talk.json") == ["first\nquestion?"]


def test_a_history_that_cannot_be_kept_is_told_and_no_more(play, kept_elsewhere) -> None:
    play()
    kept_elsewhere.parent.write_text("in the way")
    with terminal() as chat:
        assert chat.shown.count("what is typed is not kept") == 1
        ask(chat, "hello\r")
        chat.type(CTRL_D)
        assert chat.end() == 0
        assert chat.shown.count("what is typed is not kept") == 1


def test_commands_paths_and_settings_are_completed(play, tmp_path, monkeypatch) -> None:
    play()
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (64, 32)).save(tmp_path / "an image.png")
    with terminal() as chat:
        chat.type("/im" + TAB)
        chat.wait_for("/image")
        chat.type(" ~/an i" + TAB)
        chat.wait_for("mage.png")
        chat.type("\r")
        chat.wait_for("an image.png: 64x32, 15 tokens")
        chat.wait_for(r"\[1 image\] >")
        chat.type("/set repe" + TAB)
        chat.wait_for("tition_penalty=")
        chat.type("1.5\r")
        chat.wait_for(r"repetition_penalty +1.5 +\(set here\)")


def test_ctrl_c_clears_the_line_and_twice_leaves(play) -> None:
    play()
    with terminal() as chat:
        chat.type("half a question" + CTRL_C)
        chat.wait_for("\n>")
        ask(chat, "whole\r")
        chat.type(CTRL_C)
        chat.wait_for("Ctrl-C again, or Ctrl-D, leaves")
        chat.wait_for(">")
        ask(chat, "still there\r")
        chat.type(CTRL_C)
        chat.wait_for("leaves")
        chat.wait_for(">")
        chat.type(CTRL_C)
        assert chat.end() == 0


@pytest.mark.parametrize("when", ["at the prompt", "in mid-answer"])
def test_sigterm_ends_it_and_leaves_the_terminal_as_it_was(play, when) -> None:
    play(fault="hang", fault_at=3)
    with terminal() as chat:
        assert termios.tcgetattr(chat.main) != chat.before  # a line is being edited
        if when == "in mid-answer":
            chat.type("hello\r")
            chat.wait_for("I see")
        chat.process.send_signal(signal.SIGTERM)
        assert chat.end() == 143
        assert termios.tcgetattr(chat.main) == chat.before


def test_a_failed_answer_leaves_the_chat_at_its_prompt(play) -> None:
    play(fault="raise", fault_at=2)
    with terminal() as chat:
        for _ in range(2):
            chat.type("hello\r")
            chat.wait_for(r"hybrid: the script says to fail here \(the question is not kept\)\n")
            chat.wait_for(">")


def test_a_stop_before_the_first_word_keeps_nothing(play, tmp_path) -> None:
    play(fault="hang", fault_at=0)
    with terminal("--explain") as chat:
        chat.type("hello\r")
        chat.wait_for("asked for by name")
        chat.type(CTRL_C)
        chat.wait_for(r"\(stopped; the question is not kept\)")
        chat.wait_for(">")
        chat.type("/stats\r")
        chat.wait_for("nothing was answered yet")


def test_a_stopped_answer_does_not_hold_up_the_next(play, tmp_path) -> None:
    play(fault="hang", fault_at=3)
    with terminal() as chat:
        for _ in range(2):
            chat.type("hello\r")
            chat.wait_for("I see")
            chat.type(CTRL_C)
            chat.wait_for(r"\(stopped\)")
            chat.wait_for(">")
        assert saved(chat, tmp_path / "talk.json") == ["hello", "hello"]
