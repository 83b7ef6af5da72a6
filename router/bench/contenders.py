"""The backends that are to be measured with a model: how each is loaded, or why it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import backends
from backends.base import BackendError, RequestError, Runtime
from backends.qwen3vl.config import TextConfig
from backends.store.manifest import Manifest
from router.bench.costs import BYTES, Traffic, cache_values, plain_traffic
from router.bench.engine import Engine, Facts
from router.bench.fidelity import EXACT, Fidelity
from router.bench.http_engine import Server
from router.bench.local import Local
from router.model_backends import ModelBackends
from router.models import SILENT, Listener, Model

DEFAULT = ("torch", "genai", "onnx")
_GRAPHS = {"onnx": "decoder.onnx", "genai": "text.onnx"}  # what each decodes with


@dataclass(frozen=True)
class Contender:
    """One of those measured, as far as it is known before it is loaded."""

    name: str
    make: Callable[[], Engine] | None = None
    problem: str | None = None  # why it cannot be measured
    fidelity: Fidelity | None = None  # None where it is not known
    disk_bytes: int | None = None  # of the folders it reads
    graph: Path | None = None  # what it decodes with

    def traffic(self, text: TextConfig, facts: Facts) -> Traffic | None:
        """What decoding reads from this machine's memory; None where that is not known."""
        if facts.device != "cpu":
            return None
        if self.graph is not None and self.graph.is_file():
            from backends.export.traffic import weight_bytes

            return Traffic(weight_bytes(self.graph), cache_values(text) * BYTES["float32"])
        return plain_traffic(text, BYTES[facts.numbers]) if facts.numbers in BYTES else None


def check_names(names: Sequence[str]) -> None:
    """RequestError ``backend_not_found``: a backend that was asked for has a name that nobody knows."""
    for name in names:
        backends.capability(name)


def contender(name: str, model: Model, runtime: Runtime, listener: Listener = SILENT) -> Contender:
    """Backend ``name`` with ``model``, whose export is made now if it is needed and not there."""
    known = ModelBackends(model, runtime, listener=listener)
    found = known.available().get(name)
    if found is None or found.problem is not None:
        return Contender(name, problem="there is no backend of that name" if found is None else found.problem)
    try:
        folder, how = known.reads(found)
        if found.reads_export:
            return _with_export(name, model, folder, how)
    except (RequestError, BackendError) as error:
        return Contender(name, problem=str(error))
    fidelity = EXACT if name == "torch" else None
    make = Local(name, folder, model.folder, how)
    return Contender(name, make, fidelity=fidelity, disk_bytes=_disk_bytes(folder))


def server(url: str, model: str | None) -> Contender:
    """A server, called by its address."""
    return Contender(url.partition("://")[2].strip("/") or url, Server(url, model))


def _with_export(name: str, model: Model, folder: Path, runtime: Runtime) -> Contender:
    manifest = Manifest.read(folder)
    numbers = f"{manifest.recipe.precision}, {manifest.recipe.recipe}"
    if manifest.recipe.prefill_precision is not None and name == "onnx":
        numbers += f", {manifest.recipe.prefill_precision} prefill"
    graph = folder / _GRAPHS[name] if name in _GRAPHS else None
    return Contender(
        name,
        Local(name, folder, model.folder, runtime, numbers),
        fidelity=Fidelity.of(manifest.matrices),
        disk_bytes=sum(map(_disk_bytes, filter(None, (folder, runtime.packed)))),
        graph=graph,
    )


def _disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
