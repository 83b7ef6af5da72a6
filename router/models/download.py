"""Files of a hub repository, by way of huggingface_hub: listed, downloaded, compared by their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from logging import ERROR
from pathlib import Path
from typing import Any, cast

from backends.base import BackendError, RequestError
from backends.export.manifest import sha256

Progress = Callable[[str, int, int], None]  # what is done, bytes so far, bytes in all

TIMEOUT = 10  # seconds until a hub that does not answer is given up


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it: large ones by their sha256, others by git's hash."""

    size: int
    git_hash: str | None
    sha256: str | None

    def matches(self, path: Path) -> bool:
        """Whether the file at ``path`` is this one."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return sha256(path) == self.sha256
        data = path.read_bytes()
        return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest() == self.git_hash


@dataclass(frozen=True)
class Listing:
    """A commit of a repository, and those of its files that are wanted."""

    name: str
    commit: str
    files: Mapping[str, HubFile]


def is_offline() -> bool:
    """Whether the environment forbids to ask the hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def listing(name: str, revision: str, wanted: re.Pattern[str]) -> Listing:
    """What the hub has of ``name`` at ``revision``; only names that match ``wanted`` as a whole."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    assert info.sha is not None
    files = {
        file.rfilename: HubFile(file.size or 0, file.blob_id, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
        if wanted.fullmatch(file.rfilename)
    }
    return Listing(name, info.sha, files)


def download(listed: Listing, names: Sequence[str], revision: str, progress: Progress) -> Path:
    """Bring these files into the hub's cache and return the snapshot's folder; what is there is kept.

    A connection that breaks is taken up where it broke; a file is under its name only when it is whole.
    """
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        listed.name,
        revision=revision,
        allow_patterns=[re.sub(r"([*?[])", r"[\1]", name) for name in names],
        etag_timeout=TIMEOUT,
        tqdm_class=_bar(progress),
    )
    if Path(folder).name != listed.commit:
        raise RequestError(f"'{listed.name}' changed while it was pulled; pull it again", param="model")
    return Path(folder)


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


def _bar(progress: Progress) -> type[Any]:
    """A bar for huggingface_hub that shows nothing and tells ``progress`` how many bytes are there."""
    from tqdm.std import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that watches over slow bars

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            self._told = settings.get("unit") == "B"
            super().__init__(*arguments, **settings | {"file": StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> None:
            if self._told and self.total:
                progress("downloading", int(self.n), int(self.total))

    return Bar
