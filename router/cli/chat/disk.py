"""A saved conversation's file: written whole or not at all, and read with care."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from backends.base import RequestError

LARGEST = 512_000_000  # bytes; eight photographs of 12 megapixels take about 200 million


def write(file: str, text: str, *, over: bool) -> Path:
    """Write aside and rename; the file is for its owner's eyes. RequestError: it exists, or it cannot be."""
    data = text.encode("utf-8")
    if len(data) > LARGEST:
        raise RequestError(f"it would have {len(data):,} bytes, and {LARGEST:,} are read back at most")
    try:
        target = Path(file).resolve()  # what a link leads to is replaced, not the link
        if target.is_dir():
            raise RequestError(f"{file!r} is a folder; name a file")
        if target.exists() and not over:
            raise RequestError(f"{file!r} is there already; /save! replaces it")
        _replace(target, data)
    except OSError as error:
        raise RequestError(f"{file!r} cannot be written: {error.strerror}", code="not_writable") from None
    except (ValueError, RuntimeError):  # a null character; links in a circle
        raise RequestError(f"{file!r} cannot be the name of a file", code="not_writable") from None
    return target


def read(file: str) -> str:
    """The text of a regular file. RequestError: it is not one, too large, or not UTF-8."""
    try:
        # a pipe that nobody writes to would hold us here
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
            state = os.fstat(opened.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise RequestError(f"{file!r} is not a regular file")
            if state.st_size > LARGEST:
                raise RequestError(f"{file!r} has {state.st_size:,} bytes; at most {LARGEST:,} are read")
            return opened.read(LARGEST + 1).decode("utf-8")
    except OSError as error:
        raise RequestError(f"{file!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{file!r} is not UTF-8 (byte {error.start})", code="invalid_encoding") from None
    except ValueError:
        raise RequestError(f"{file!r} cannot be the name of a file") from None


def _replace(target: Path, data: bytes) -> None:
    number, part = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
