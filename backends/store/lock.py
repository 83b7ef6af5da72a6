"""One writer at a time: locks that a process's death releases, and that leave no file behind.

They are flock's. Whoever holds a lock file removes it before letting go, so that one who waited for it must
look whether what it locked still has that name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backends.base import BackendError


def silent() -> None:
    """What to do while waiting: nothing."""


@contextmanager
def locked(path: Path, *, wait: bool = True, on_wait: Callable[[], None] = silent) -> Iterator[None]:
    """Hold the lock file ``path``, and remove it in the end; ``on_wait`` is called once before waiting.

    BackendError ``locked``: another process holds it and ``wait`` is False.
    """
    descriptor = _hold(path, wait, on_wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the release: whoever waits sees that its file is gone
        os.close(descriptor)


def lock_folder(folder: Path) -> int | None:
    """A descriptor that locks ``folder`` until it is closed; None when it is locked already, or gone."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if _taken(descriptor) and _is_still(folder, descriptor):
            return descriptor
        os.close(descriptor)
    return None


def remove_abandoned(path: Path) -> None:
    """Remove a lock file that nobody holds."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        if _taken(descriptor) and _is_still(path, descriptor):
            path.unlink()
        os.close(descriptor)


def _hold(path: Path, wait: bool, on_wait: Callable[[], None]) -> int:
    notified = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if not _taken(descriptor):
                if not wait:
                    raise BackendError(
                        f"another process is writing {path.parent / path.stem.lstrip('.')}; "
                        "wait for it, or leave --no-wait out",
                        code="locked",
                    )
                if not notified:
                    on_wait()
                    notified = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # the one who held it has removed the file: then this lock is on nothing, and a new file is due
            if _is_still(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise BackendError(
            "this file system has no locks, so two exports could meet; set HYBRID_HOME to a local disk",
            code="locked",
        ) from None
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether ``path`` is the file that was opened."""
    try:
        now = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(now, os.fstat(descriptor))
