"""A terminal for a child process: what it shows, and what is typed."""

import codecs
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

ROOT = Path(__file__).parent.parent
# the terminal becomes the one that Ctrl-C is heard on
CHAT = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "from router.cli import main; main()"
)  # fmt: skip
PATIENCE = 60  # seconds until what is waited for is taken never to come
CTRL_C, CTRL_D, UP, ALT_ENTER, TAB = "\x03", "\x04", "\x1b[A", "\x1b\r", "\t"
_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")
_BEGUN = re.compile(r"\x1b(\[[0-9;?]*)?$")


class Terminal:
    """A process in a terminal of 80 x 24, what it has shown, and what is typed."""

    def __init__(self, *arguments: str) -> None:
        self.main, side = os.openpty()
        ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.main)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHAT, "chat", *arguments],
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = ""  # the beginning of a code whose end was not read yet
        self.seen = 0  # how much of it was waited for

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def wait_for(self, pattern: str) -> str:
        """Read on until the pattern comes after all that was waited for before; what came until its end."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.compile(pattern).search(self.shown, self.seen)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} never came: {self.shown[self.seen :]!r}"
            assert self._read(), f"it ended without {pattern!r}: {self.shown[self.seen :]!r}"
        text = self.shown[self.seen : found.end()]
        self.seen = found.end()
        return text

    def end(self) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < deadline, f"it never ended: {self.shown[self.seen :]!r}"
        return self.process.wait(timeout=PATIENCE)

    def _read(self) -> bool:
        """Wait a second for more; False when there will be none."""
        ready, _, _ = select.select([self.main], [], [], 1)
        if not ready:
            return True
        try:
            data = os.read(self.main, 65536)
        except OSError:  # nobody has the other side open any more
            return False
        text = self._begun + self._decoder.decode(data)
        begun = _BEGUN.search(text)
        self._begun = begun[0] if begun else ""
        self.shown += _CODES.sub("", text.removesuffix(self._begun))
        return bool(data)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        opened.wait_for("Ctrl-D leaves")
        opened.wait_for(">")
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.main)
