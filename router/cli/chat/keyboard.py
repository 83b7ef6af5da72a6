"""Questions from somebody at a terminal: a line to edit, with history and completion."""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

import backends
from router.cli.chat.commands import COMMANDS, continues
from router.cli.chat.history import History, history_file
from router.cli.chat.settings import NAMES


class Keyboard:
    """A line editor on the terminal."""

    interactive = True

    def __init__(self) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_keys(),
            completer=_Completer(),
            complete_while_typing=False,
            history=History(history_file(), lambda text: click.echo(f"hybrid: {text}", err=True)),
            prompt_continuation="  ",
            enable_suspend=True,
            # stdout may be a file; the line is then edited on stderr
            output=create_output(always_prefer_tty=True),
        )

    def read(self, waiting: int) -> str | None:
        """What was typed; None after Ctrl-D on an empty line, or Ctrl-C twice."""
        pictures = {0: "", 1: "[1 picture] "}.get(waiting, f"[{waiting} pictures] ")
        interrupted = False
        while True:
            try:
                with _terminal_restored():
                    return self._session.prompt(f"{pictures}> ")
            except EOFError:
                return None
            except KeyboardInterrupt:
                empty = not self._session.default_buffer.text
                if interrupted and empty:
                    return None
                interrupted = True
                if empty:
                    click.echo("(Ctrl-C again, or Ctrl-D, leaves)", err=True)


@contextmanager
def _terminal_restored() -> Iterator[None]:
    """Leave the terminal as it was, also when SIGTERM comes just after prompt_toolkit has set it."""
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if continues(buffer.document.current_line_before_cursor) and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


class _Completer(Completer):
    """Commands at the start of the text; after one, what it takes."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        name, space, argument = document.text_before_cursor.partition(" ")
        if not name.startswith("/"):
            return
        if not space:
            yield from _words(name, [f"/{command}" for command in COMMANDS])
        elif COMMANDS.get(name[1:], COMMANDS["help"]).takes in ("PATH ..", "FILE"):
            for found in self._paths.get_completions(Document(argument), complete_event):
                folder = "/" if found.display_text.endswith("/") else ""
                yield Completion(found.text + folder, found.start_position, found.display)
        elif name == "/set":
            yield from _words(argument, [f"{setting}=" for setting in NAMES])
        elif name == "/backend":
            yield from _words(argument, ["auto", *backends.names()])


def _words(start: str, words: Iterable[str]) -> Iterable[Completion]:
    return (Completion(word, -len(start)) for word in words if word.startswith(start))
