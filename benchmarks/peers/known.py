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
    """Those whose name begins with one of ``names``, in their order; RequestError: a name fits none."""
    for name in names:
        if not any(peer.name.startswith(name) for peer in all_peers):
            known = ", ".join(peer.name for peer in all_peers)
            raise RequestError(f"there is no peer '{name}'; there are {known}", param="peers")
    found = [peer for name in names for peer in all_peers if peer.name.startswith(name)]
    return tuple(dict.fromkeys(found))


def versions() -> dict[str, str]:
    """Of the peers' packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
