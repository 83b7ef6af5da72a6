"""A failure as one line and an exit code.

0 done, 1 a bug, 2 a wrong option, 3 a bad image or prompt, 4 a model that is missing or damaged,
5 a backend that failed, 6 the answer or a model could not be written, 130 Ctrl-C, 141 the reader of a
pipe left, 143 terminated.
"""

from __future__ import annotations

import click

_INPUT_CODES = {
    "invalid_image",
    "image_too_large",
    "image_aspect_ratio",
    "invalid_encoding",
    "context_length_exceeded",
}
_MODEL_CODES = {"model_not_found", "model_invalid"}
_DISK_CODES = {"disk_full", "locked", "not_writable"}


class OutputError(Exception):
    """The answer could not be written to stdout."""


def exit_code(failure: BaseException) -> int:
    """The documented exit code of ``failure``."""
    from backends.base import BackendError, RequestError

    match failure:
        case KeyboardInterrupt() | click.Abort():
            return 130
        case BrokenPipeError():
            return 141
        case OutputError() | OSError():
            return 6
        case click.ClickException():
            return failure.exit_code
        case RequestError() | BackendError() if failure.code in _MODEL_CODES:
            return 4
        case RequestError():
            return 3 if failure.code in _INPUT_CODES else 2
        case BackendError():
            return 6 if failure.code in _DISK_CODES else 5
    return 1


def describe(failure: BaseException) -> str:
    """One line that says what happened and what to do; empty where silence is right."""
    match exit_code(failure):
        case 130 | 141:
            return ""
        case 1:
            return (
                f"internal error, {type(failure).__name__}: {failure} (--debug shows where; please report it)"
            )
    if isinstance(failure, click.UsageError) and failure.ctx is not None:
        return f"{failure.format_message().rstrip('.')}; see '{failure.ctx.command_path} --help'"
    if isinstance(failure, click.ClickException):
        return failure.format_message()
    return " ".join(str(failure).split())
