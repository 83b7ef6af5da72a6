"""Questions from a pipe or a file: one a line, until it ends."""

from __future__ import annotations

import sys
from typing import Protocol

from backends.base import RequestError
from router.cli.chat.commands import continues

LONGEST = 8 << 20  # bytes of a line; far above any context


class Input(Protocol):
    """Where a chat's questions and commands come from."""

    interactive: bool
    """Whether somebody sits there: Ctrl-C then stops an answer, otherwise the chat."""

    def read(self, waiting_images: int) -> str | None:
        """The next one, while ``waiting_images`` images wait for it; None where there is no more.

        RequestError: it cannot be read; what comes after it can.
        """
        ...


class Lines:
    """Lines of stdin; one that ends in a backslash goes on in the next."""

    interactive = False

    def read(self, waiting_images: int) -> str | None:
        """The next line, joined with those it goes on in."""
        line = self._line()
        if line is None:
            return None
        lines = [line]
        while continues(lines[-1]) and (line := self._line()) is not None:
            lines[-1] = lines[-1][:-1]
            lines.append(line)
        return "\n".join(lines)

    def _line(self) -> str | None:
        data = sys.stdin.buffer.readline(LONGEST + 1)
        if len(data) > LONGEST:
            while data and not data.endswith(b"\n"):
                data = sys.stdin.buffer.readline(LONGEST)
            raise RequestError("a line is longer than 8 MiB; shorten it", code="context_length_exceeded")
        try:
            return data.decode("utf-8").removesuffix("\n").removesuffix("\r") if data else None
        except UnicodeDecodeError as error:
            raise RequestError(
                f"a line is not UTF-8 (byte {error.start} of it); convert it first", code="invalid_encoding"
            ) from None
