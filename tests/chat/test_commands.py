"""What is typed in a chat, read without a model."""

import os
from dataclasses import replace

import numpy as np
import pytest

from backends.base import RequestError
from router.cli.chat.commands import COMMANDS, Command, continues, help_text, parse, path, paths
from router.cli.chat.session import Conversation
from router.types import Message, Picture

HOME = os.path.expanduser("~")
RED = Picture(np.full((32, 32, 3), (255, 0, 0), np.uint8))
BLUE = Picture(np.full((32, 64, 3), (0, 0, 255), np.uint8))


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("What is this?", "What is this?"),
        ("  indented\nand more  ", "  indented\nand more  "),
        ("", ""),
        ("//image is a command", "/image is a command"),
        ("///", "//"),
        ("a/b", "a/b"),
        ("/clear", Command("clear")),
        ("/clear  ", Command("clear")),
        ("/image  a b.png ", Command("image", "a b.png")),
        ("/save! out.json", Command("save!", "out.json")),
        ("/set", Command("set")),
        ("/set stop= x", Command("set", "stop= x")),
    ],
)
def test_a_text_is_a_question_or_a_command(text: str, entry: str | Command) -> None:
    assert parse(text) == entry


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/", "no command is named '/'"),
        ("/quit", "/help lists them, and //quit sends it as text"),
        ("/usr/bin is a folder", "no command is named '/usr/bin'"),
        ("/image", "/image wants PATH .. after it"),
        ("/load  ", "/load wants FILE after it"),
        ("/backend", "/backend wants auto|NAME after it"),
        ("/clear all", "/clear takes nothing after it, got 'all'"),
        ("/image a.png\nWhat is it?", "/image is one line"),
        ("/clear\nWhat is it?", "no command is named"),
    ],
)
def test_a_wrong_command_says_what_is_right(text: str, words: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse(text)
    assert words in str(raised.value)


def test_the_help_names_every_command_and_fits_a_terminal() -> None:
    lines = help_text().splitlines()
    for name in COMMANDS:
        assert any(line.startswith(f"  /{name} ") for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("a.png", ["a.png"]),
        ("a.png b.png", ["a.png", "b.png"]),
        ("my photo.png", ["my photo.png"]),  # a file of this name is there
        ("it's.png", ["it's.png"]),
        ("'my other.png' \"b c.png\"", ["my other.png", "b c.png"]),
        ("my\\ other.png", ["my other.png"]),
        ("~/a.png", [f"{HOME}/a.png"]),
        ("~/a.png '~/b c.png'", [f"{HOME}/a.png", f"{HOME}/b c.png"]),
    ],
)
def test_paths_are_words_as_in_a_shell_or_the_name_of_a_file(argument: str, named: list[str]) -> None:
    assert list(paths(argument, {"my photo.png", "it's.png"}.__contains__)) == named


def test_a_quote_without_an_end_is_refused() -> None:
    with pytest.raises(RequestError, match="does not end"):
        paths("it's.png", lambda _: False)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("a.json", "a.json"),
        ("my chat.json", "my chat.json"),
        ("'my chat.json'", "my chat.json"),
        ("it's.json", "it's.json"),
        ("~/a.json", f"{HOME}/a.json"),
    ],
)
def test_one_path_may_have_spaces(argument: str, named: str) -> None:
    assert path(argument) == named


@pytest.mark.parametrize(
    ("line", "goes_on"),
    [("a\\", True), ("a\\\\", False), ("a\\\\\\", True), ("a", False), ("\\", True), ("", False)],
)
def test_an_odd_number_of_backslashes_goes_on(line: str, goes_on: bool) -> None:
    assert continues(line) is goes_on


def test_a_question_takes_the_images_that_wait_and_the_answer_follows() -> None:
    start = Conversation.start("Be short.").with_images(RED).with_images(BLUE)
    question = start.with_question("Which colours?")
    assert question.waiting_images == ()
    assert question.messages[0] is start.messages[0]
    assert [message.role for message in question.with_answer("Red.").messages] == [
        "system",
        "user",
        "assistant",
    ]
    assert question.messages[1].parts == (RED, BLUE, "Which colours?")


def test_a_step_leaves_the_conversation_before_it_as_it_was() -> None:
    start = Conversation.start(None).with_images(RED)
    start.with_question("What?").with_answer("Red.").with_images(BLUE).cleared()
    assert start.messages == ()
    assert start.waiting_images == (RED,)


def test_clearing_keeps_the_system_prompt_alone() -> None:
    conversation = (
        Conversation.start("Be short.")
        .with_images(RED)
        .with_question("What?")
        .with_answer("Red.")
        .with_images(BLUE)
    )
    assert [message.parts for message in conversation.cleared().messages] == [("Be short.",)]
    assert conversation.cleared().waiting_images == ()
    assert conversation.without_waiting_images().messages == conversation.messages
    assert conversation.without_waiting_images().waiting_images == ()


def test_images_are_those_said_and_those_that_wait() -> None:
    conversation = replace(Conversation((Message.of("user", RED, "What?"),)), waiting_images=(BLUE,))
    assert conversation.images == (RED, BLUE)
