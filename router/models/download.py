"""Files of a hub repository, by way of huggingface_hub: listed, downloaded, compared by their hashes.

The listing is the hub's own and not that of a dry run of the download, which takes a repository that is not
there for a hub that does not answer, and moves the branch in the cache before anything is known of its files.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from logging import ERROR
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

from backends.base import BackendError, RequestError
from backends.store import Progress

TIMEOUT = 10  # seconds until a hub that does not answer is given up
GRACE = 2  # seconds that an interrupted download has to remove what it has begun
REMAINS = 24 * 3600  # seconds after which a file that grows no more is nobody's


@dataclass(frozen=True)
class Listing:
    """A commit of a repository, and those of its files that are wanted."""

    name: str
    commit: str
    sizes: Mapping[str, int]  # bytes of each file


def cache() -> Path:
    """The hub's cache, which other programs use too."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether the environment forbids to ask the hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def listing(name: str, revision: str, pattern: re.Pattern[str]) -> Listing:
    """What the hub has of ``name`` at ``revision``; only names that match ``pattern`` as a whole."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    assert info.sha is not None
    files = [file for file in info.siblings or () if pattern.fullmatch(file.rfilename)]
    return Listing(name, info.sha, {file.rfilename: file.size or 0 for file in files})


def download(listed: Listing, names: Collection[str], revision: str, progress: Progress) -> Path:
    """Bring these files into the hub's cache and return the snapshot's folder; what is there is kept.

    A connection that breaks is taken up where it broke; a file is under its name only when it is whole.
    """
    from huggingface_hub import snapshot_download

    stop = Event()
    work = partial(
        snapshot_download,
        listed.name,
        revision=revision,
        allow_patterns=[re.sub(r"([*?[])", r"[\1]", name) for name in names],
        etag_timeout=TIMEOUT,
        tqdm_class=_bar(progress, stop),
    )
    folder = Path(_interruptible(work, stop))
    if folder.name != listed.commit:
        raise RequestError(f"'{listed.name}' changed while it was pulled; pull it again", param="model")
    return folder


def damaged_files(listed: Listing) -> set[str]:
    """Files that the snapshot lacks, or has with other bytes than the hub lists; every byte is read."""
    from huggingface_hub import HfApi

    verified = HfApi().verify_repo_checksums(listed.name, revision=listed.commit, cache_dir=cache())
    return {mismatch["path"] for mismatch in verified.mismatches} | set(verified.missing_paths)


def listed_before(name: str, commit: str, pattern: re.Pattern[str]) -> dict[str, int] | None:
    """Names and sizes as the hub listed them when they were downloaded; None if nobody noted them."""
    from huggingface_hub import errors, get_cached_repo_tree

    try:
        files = get_cached_repo_tree(name, revision=commit, cache_dir=cache())
    except errors.CachedRepoTreeNotFoundError:
        return None
    return {file.path: file.size for file in files if pattern.fullmatch(file.path)}


def remove_remains(repository: Path) -> None:
    """Remove what downloads that were killed long ago have left in a repository of the cache."""
    for file in (repository / "blobs").glob("*.incomplete"):
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > REMAINS:
                file.unlink()


@contextmanager
def hub_errors(name: str, revision: str) -> Iterator[None]:
    """Turn what huggingface_hub and the network raise into our errors; its own log stays silent."""
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    # of httpx or of httpx2, whichever this huggingface_hub is built on
    network_error = cast("type[Exception]", errors.HfHubHTTPError.__bases__[0])
    level = logging.get_verbosity()
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity(ERROR)
    try:
        yield
    except errors.RevisionNotFoundError:
        raise _not_found(
            f"the hub's '{name}' has no revision '{revision}'; leave it out, or name another"
        ) from None
    except errors.RepositoryNotFoundError:
        raise _not_found(
            f"the hub has no model '{name}', or it is private or gated: check the spelling, "
            "or log in with 'hf auth login'"
        ) from None
    except (network_error, errors.LocalEntryNotFoundError) as error:
        raise _not_found(
            f"'{name}' cannot be pulled, the hub did not deliver ({_reason(error)}); try again"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BackendError(
                f"the disk is full; make room for '{name}', or set HF_HOME to another disk", code="disk_full"
            ) from None
        if error.errno is not None:
            raise
        # huggingface_hub's own checks, such as a file of another length than was announced
        raise _not_found(f"'{name}' cannot be pulled ({_reason(error)}); try again") from None
    finally:
        logging.set_verbosity(level)


def _not_found(message: str) -> RequestError:
    return RequestError(message, code="model_not_found", param="model")


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0][:200]


def _interruptible(work: Callable[[], str], stop: Event) -> str:
    """Do ``work`` in a thread, so that Ctrl-C need not wait until a file of gigabytes is there."""
    done: Future[str] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        # waited for by the future: a thread whose join was interrupted counts as ended
        while not done.done():
            wait([done], timeout=0.2)
    except BaseException:
        stop.set()
        wait([done], timeout=GRACE)
        raise
    return done.result()


class _StoppedError(Exception):
    """Raised in huggingface_hub's threads to end their downloads."""


def _bar(progress: Progress, stop: Event) -> type[Any]:
    """A bar for huggingface_hub that shows nothing, calls ``progress``, and raises once ``stop`` is set."""
    from tqdm.std import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that watches over slow bars

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            self._counts_bytes = settings.get("unit") == "B"
            super().__init__(*arguments, **settings | {"file": StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            if stop.is_set():
                raise _StoppedError
            return cast("bool | None", super().update(n))

        def display(self, *_: Any, **__: Any) -> None:
            if self._counts_bytes and self.total:
                progress("downloading", int(self.n), int(self.total))

    return Bar
