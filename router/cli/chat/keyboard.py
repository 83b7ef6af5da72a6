"""Questions from somebody at a terminal: a line to edit, with history and completion."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

import backends
from router.cli.chat.commands import COMMANDS, continues
from router.cli.chat.settings import NAMES
from router.cli.terminal import write_stderr
from router.models import home


class Keyboard:
    """A line editor on the terminal."""

    interactive = True

    def __init__(self) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_keys(),
            completer=_Completer(),
            complete_while_typing=False,
            history=History(history_file(), lambda text: write_stderr(f"hybrid: {text}")),
            prompt_continuation="  ",
            enable_suspend=True,
            # stdout may be a file; the line is then edited on stderr
            output=create_output(always_prefer_tty=True),
        )

    def read(self, waiting_images: int) -> str | None:
        """What was typed; None after Ctrl-D on an empty line, or Ctrl-C twice."""
        prefix = {0: "", 1: "[1 image] "}.get(waiting_images, f"[{waiting_images} images] ")
        interrupted = False
        while True:
            try:
                with _terminal_restored():
                    return self._session.prompt(f"{prefix}> ")
            except EOFError:
                return None
            except KeyboardInterrupt:
                empty = not self._session.default_buffer.text
                if interrupted and empty:
                    return None
                interrupted = True
                if empty:
                    write_stderr("(Ctrl-C again, or Ctrl-D, leaves)")


@contextmanager
def _terminal_restored() -> Iterator[None]:
    """Leave the terminal as it was, also when SIGTERM comes just after prompt_toolkit has set it."""
    attributes = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, attributes)


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
            for path in self._paths.get_completions(Document(argument), complete_event):
                folder = "/" if path.display_text.endswith("/") else ""
                yield Completion(path.text + folder, path.start_position, path.display)
        elif name == "/set":
            yield from _words(argument, [f"{setting}=" for setting in NAMES])
        elif name == "/backend":
            yield from _words(argument, ["auto", *backends.names()])


def _words(start: str, words: Iterable[str]) -> Iterable[Completion]:
    return (Completion(word, -len(start)) for word in words if word.startswith(start))


LARGEST = 1_000_000  # bytes, at the start of a chat; the older half goes when it is more


def history_file() -> Path:
    """In HYBRID_HOME where that is set, else beside config.toml in the user's configuration folder."""
    folder = home() if os.environ.get("HYBRID_HOME") else Path(click.get_app_dir("hybrid"))
    return folder / "chat-history"


class History(FileHistory):
    """Kept in a file as long as that can be written; a chat goes on without."""

    def __init__(self, file: Path, notify: Callable[[str], None]) -> None:
        """Make or tidy the file; ``notify`` is called once, when it cannot be used."""
        super().__init__(file)
        self._file = file
        self._notify = notify
        self._usable = True
        self._attempt(self._tidy)

    def load_history_strings(self) -> list[str]:
        """The newest first."""
        entries: list[str] = []
        self._attempt(lambda: entries.extend(super(History, self).load_history_strings()))
        return entries

    def store_string(self, string: str) -> None:
        """Add one at the end."""
        self._attempt(lambda: super(History, self).store_string(string))

    def _attempt(self, step: Callable[[], None]) -> None:
        if not self._usable:
            return
        try:
            step()
        except OSError as error:
            self._usable = False
            self._notify(f"what is typed is not kept: {self._file}: {error.strerror}")

    def _tidy(self) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self._file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            os.fchmod(file.fileno(), 0o600)
        data = self._file.read_bytes()
        if len(data) > LARGEST:
            start = data.find(b"\n\n#", len(data) // 2)  # of an entry
            self._file.write_bytes(data[start + 1 :] if start >= 0 else b"")
