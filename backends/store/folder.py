"""A folder that is written aside and renamed into place: under its name it is whole, or not there at all.

A folder ``name`` is written as ``.name.<random>.part`` beside it, synced to disk and renamed; ``.name.lock``
says who writes. A process that dies leaves them unlocked, and the next one removes them.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.base import BackendError
from backends.store.lock import lock_folder, locked, remove_abandoned, silent

MARGIN = 1.1  # free space asked for, over what is expected to be written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXCHANGE = 2  # linux/fs.h: RENAME_EXCHANGE
_HERE = -100  # fcntl.h: AT_FDCWD


def write_folder(
    target: Path,
    fill: Callable[[Path], None],
    *,
    bytes_needed: int,
    keep: Callable[[Path], bool],
    wait: bool = True,
    on_wait: Callable[[], None] = silent,
) -> bool:
    """Make ``target`` what ``fill`` writes into an empty folder; False if ``keep`` accepts what is there.

    One process does it, others wait; a folder that is replaced stays whole until the new one takes its name.
    BackendError ``disk_full``: too little space, before or while writing. ``locked``: see `locked`.
    """
    _make_parent(target)
    with locked(target.with_name(f".{target.name}.lock"), wait=wait, on_wait=on_wait):
        _restore(target)
        remove_leftovers(target.parent, target.name)
        if target.is_dir() and keep(target):
            return False
        check_space(target, bytes_needed)
        with _aside(target) as part:
            try:
                fill(part)
                sync(part)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise disk_full(target, bytes_needed) from None
            _place(part, target)
    return True


def remove_folder(target: Path) -> None:
    """Remove a folder; to others it is gone at once. BackendError ``locked``: it is being written."""
    with locked(target.with_name(f".{target.name}.lock"), wait=False), _aside(target) as part:
        target.rename(part)  # over the empty folder


def remove_leftovers(parent: Path, name: str = "*") -> None:
    """Remove what writers that died have left of the folder ``name``, or of every folder in ``parent``.

    What a living process writes is locked, and stays.
    """
    for part in parent.glob(f".{name if name == '*' else glob.escape(name)}.*.part"):
        if (descriptor := lock_folder(part)) is not None:
            shutil.rmtree(part, ignore_errors=True)
            os.close(descriptor)
    if name == "*":
        for lock in parent.glob(".*.lock"):
            remove_abandoned(lock)


def check_space(target: Path, bytes_needed: int) -> None:
    """BackendError ``disk_full`` when there is not MARGIN times the room for ``bytes_needed``."""
    _make_parent(target)
    if shutil.disk_usage(target.parent).free < bytes_needed * MARGIN:
        raise disk_full(target, bytes_needed)


def disk_full(target: Path, bytes_needed: int) -> BackendError:
    """The error for a disk that does not hold what is written."""
    free = shutil.disk_usage(target.parent).free
    return BackendError(
        f"the disk is full: {target} needs {int(bytes_needed * MARGIN)} bytes, {free} are free in "
        f"{target.parent}; make room, or choose another disk",
        code="disk_full",
    )


def sync(folder: Path) -> None:
    """Bring a flat folder of regular files, and nothing else, to disk."""
    for entry in sorted(folder.iterdir()):
        status = entry.stat(follow_symlinks=False)
        assert stat.S_ISREG(status.st_mode), f"{entry} is not a regular file"
        assert status.st_nlink == 1, f"{entry} has another name"
        _sync(entry)
    _sync(folder)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target``, locked by this process; removed in the end if it is still there."""
    descriptor = None
    while descriptor is None:  # between the two calls another process may take it for abandoned
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        part.mkdir()
        descriptor = lock_folder(part)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(descriptor)


def _place(part: Path, target: Path) -> None:
    """Give ``part`` the name of ``target``; what was there before is left under the name of ``part``."""
    if not target.exists():
        part.rename(target)
    elif not exchange(part, target):
        old = _old(target)
        target.rename(old)
        part.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)


def _make_parent(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(target.parent, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise BackendError(
            f"nothing can be written in {target.parent}; give another place, or set HYBRID_HOME",
            code="not_writable",
        )


def _restore(target: Path) -> None:
    """Take back a folder that was moved away by a process that died before it had put the new one there."""
    old = _old(target)
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
