"""What was typed in earlier chats, in a file that only its owner reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click
from prompt_toolkit.history import FileHistory

from router.models import home

LARGEST = 1_000_000  # bytes, at the start of a chat; the older half goes when it is more


def history_file() -> Path:
    """In HYBRID_HOME where that is set, else beside config.toml in the user's configuration folder."""
    folder = home() if os.environ.get("HYBRID_HOME") else Path(click.get_app_dir("hybrid"))
    return folder / "chat-history"


class History(FileHistory):
    """Kept in a file as long as that can be written; a chat goes on without."""

    def __init__(self, file: Path, tell: Callable[[str], None]) -> None:
        """Make or tidy the file; ``tell`` is told once when it cannot be used."""
        super().__init__(file)
        self._file = file
        self._tell = tell
        self._usable = True
        self._attempt(self._tidy)

    def load_history_strings(self) -> list[str]:
        """The newest first."""
        found: list[str] = []
        self._attempt(lambda: found.extend(super(History, self).load_history_strings()))
        return found

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
            self._tell(f"what is typed is not kept: {self._file}: {error.strerror}")

    def _tidy(self) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self._file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            os.fchmod(file.fileno(), 0o600)
        data = self._file.read_bytes()
        if len(data) > LARGEST:
            later = data.find(b"\n\n#", len(data) // 2)  # where an entry begins
            self._file.write_bytes(data[later + 1 :] if later >= 0 else b"")
