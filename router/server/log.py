"""The log: one line for each request, with sizes and times and never a prompt, an image or a key."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

from backends.base import BackendError, RequestError

NAME = "hybrid"
LOGGER = logging.getLogger(NAME)


def set_up(as_json: bool, quiet: bool = False) -> None:
    """Write to stderr, as text or as JSON; ``quiet``: only what needs attention."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    for name in (NAME, "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    LOGGER.setLevel(logging.WARNING if quiet else logging.INFO)
    # who connects and when is ours to say; uvicorn warns of what it cannot read
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").disabled = True


def write(message: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line: a fixed message, and figures by name."""
    LOGGER.log(level, message, extra={"fields": fields})


def info(text: str) -> None:
    """What loading a model has to say, such as that an export is made."""
    LOGGER.info("%s", text)


def add_failure(fields: MutableMapping[str, Any], failure: BaseException) -> None:
    """Add what a line says of a failure: its code, and of what is not the client's where it came from.

    Its text may hold what was asked. Only the words of the set-up's own errors are written down, and not
    those of a broken model: a chat template that fails may quote a message.
    """
    fields["error"] = getattr(failure, "code", "internal_error")
    if not isinstance(failure, RequestError):
        fields["where"] = f"{type(failure).__name__} at {_places(failure.__traceback__)}"
    if isinstance(failure, BackendError) and failure.code != "model_invalid":
        fields["reason"] = str(failure)


def _places(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)[-6:]
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))


def _escaped(text: str) -> str:
    """On one line, whatever stands in it."""
    return text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        written = " ".join(f"{name}={_escaped(str(value))}" for name, value in fields.items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return f"{clock} {mark}{_escaped(record.getMessage())} {written}".rstrip()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return json.dumps(
            {
                "time": f"{stamp}.{int(record.msecs):03d}Z",
                "level": record.levelname.lower(),
                "message": record.getMessage(),
                **getattr(record, "fields", {}),
            }
        )
