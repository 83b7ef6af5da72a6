"""What is typed in a chat: a question, or a command and what stands after it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backends.base import RequestError


@dataclass(frozen=True)
class CommandHelp:
    """How a command is written and what it does."""

    takes: str  # what stands after it; in brackets where it may be left out
    does: str


COMMANDS: Mapping[str, CommandHelp] = {
    "image": CommandHelp("PATH ..", "show one or more images with the next question"),
    "drop": CommandHelp("", "take back the images that wait for the next question"),
    "clear": CommandHelp("", "start over; settings and the system prompt stay"),
    "save": CommandHelp("FILE", "write the conversation to a new file"),
    "save!": CommandHelp("FILE", "the same, over a file that is there"),
    "load": CommandHelp("FILE", "go on with a saved conversation instead of this one"),
    "set": CommandHelp("[NAME=VALUE]", "how answers are picked; NAME= unsets, /set alone lists"),
    "backend": CommandHelp("auto|NAME", "choose which backend answers"),
    "stats": CommandHelp("", "show what every answer took"),
    "help": CommandHelp("", "show this"),
    "exit": CommandHelp("", "leave, as Ctrl-D does"),
}

HINTS = """\
A line that ends in a backslash, or in Alt+Enter, goes on in the next; pasted
lines stay one text. Ctrl-C stops an answer, and what was said is kept.
//text sends a text that begins with /."""


@dataclass(frozen=True)
class Command:
    """One of COMMANDS, and what stood after it."""

    name: str
    argument: str = ""


LEAVE = Command("exit")


def parse(text: str) -> str | Command:
    """A question as it is sent, or a command. RequestError: an unknown or wrongly written command."""
    if not text.startswith("/"):
        return text
    if text.startswith("//"):
        return text[1:]
    name, _, argument = text[1:].partition(" ")
    name, argument = name.rstrip(), argument.strip()
    usage = COMMANDS.get(name)
    if usage is None:
        raise RequestError(
            f"no command is named '/{name:.40}'; /help lists them, and //{name:.40} sends it as text"
        )
    if "\n" in argument:
        raise RequestError(f"/{name} is one line, and this has more; ask the question in a line of its own")
    if argument and not usage.takes:
        raise RequestError(f"/{name} takes nothing after it, got '{argument:.40}'")
    if not argument and usage.takes and not usage.takes.startswith("["):
        raise RequestError(f"/{name} wants {usage.takes} after it")
    return Command(name, argument)


def help_text() -> str:
    """All commands, one a line."""
    descriptions = {f"/{name} {usage.takes}".rstrip(): usage.does for name, usage in COMMANDS.items()}
    width = max(map(len, descriptions))
    return "\n".join([*(f"  {command:<{width}}  {does}" for command, does in descriptions.items()), HINTS])


def paths(argument: str, exists: Callable[[str], bool] = os.path.exists) -> tuple[str, ...]:
    """The paths in a command's argument, ``~`` expanded: words as in a shell, or one name with spaces.

    RequestError: a quote that does not end, and no file is named like that.
    """
    name = os.path.expanduser(argument)
    if exists(name):
        return (name,)
    try:
        return tuple(map(os.path.expanduser, shlex.split(argument)))
    except ValueError:
        raise RequestError(
            f"the quote in {argument!r:.80} does not end, and no file is named like that"
        ) from None


def path(argument: str) -> str:
    """The one path in a command's argument; it need not exist."""
    try:
        words = shlex.split(argument)
    except ValueError:
        words = []
    return os.path.expanduser(words[0] if len(words) == 1 else argument)


def continues(line: str) -> bool:
    """Whether a line goes on in the next: it ends in a backslash that no other one stands before."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1
