"""What people would use instead: other libraries with the same checkpoint, measured by `router.bench`.

Each module here offers ``PEERS``; ``python -m benchmarks.peers`` measures them beside hybrid's own backends.
A peer's engine answers greedily, with exactly as many tokens as it is asked for, and forgets what it read
before anything but a follow-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from backends.base import BackendError, RequestError
from router.bench.contenders import Contender
from router.models import Listener


@dataclass(frozen=True)
class Peer:
    """A library in one of its settings."""

    name: str
    module: str  # that must be importable
    install: str  # the command that makes it so
    contender: Callable[[Path, Path, int, Listener], Contender]
    """Makes what it reads from a checkpoint, once, in a folder to work in; then: threads, whom to tell."""


def enter(peer: Peer, checkpoint: Path, work: Path, threads: int, listener: Listener) -> Contender:
    """The peer, ready to be measured, or why it cannot be."""
    if find_spec(peer.module) is None:
        return Contender(peer.name, problem=f"{peer.module} is not installed: {peer.install}")
    try:
        return peer.contender(checkpoint, work, threads, listener)
    except (RequestError, BackendError) as error:
        return Contender(peer.name, problem=str(error))
