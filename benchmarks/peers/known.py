"""Which peers there are."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from backends.base import RequestError
from benchmarks.peers import Peer

MODULES = ("hybrid", "llama_cpp", "openvino_genai", "genai_own", "transformers_generate")
PACKAGES = ("llama-cpp-python", "gguf", "openvino", "openvino-genai", "optimum-intel")


def peers() -> tuple[Peer, ...]:
    """All of them, hybrid's own first."""
    loaded = [import_module(f"benchmarks.peers.{name}") for name in MODULES]
    return tuple(peer for module in loaded for peer in module.PEERS)


def chosen(all_peers: Sequence[Peer], names: Sequence[str]) -> tuple[Peer, ...]:
    """The peers that ``names`` name, each the one that has it or else all that begin with it, in their order.

    RequestError: a name fits none.
    """
    known = [peer.name for peer in all_peers]

    def fits(peer: Peer, name: str) -> bool:
        return peer.name == name if name in known else peer.name.startswith(name)

    fitting = {name: [peer for peer in all_peers if fits(peer, name)] for name in names}
    for name, found in fitting.items():
        if not found:
            raise RequestError(f"there is no peer '{name}'; there are {', '.join(known)}", param="peers")
    return tuple(dict.fromkeys(peer for found in fitting.values() for peer in found))


def versions() -> dict[str, str]:
    """Of the peers' packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
