"""The backends that are to be measured with a model: how each is loaded, or why it cannot run.

A speed counts only with the fidelity it has: how far a backend's weights W are from the checkpoint's, as the
export's manifest says, ||W - Wq|| / ||W|| (Frobenius), the mean over the matrices of each part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import backends
from backends.base import BackendError, RequestError, Runtime
from backends.qwen3vl import TextConfig
from backends.store import SEARCH, Manifest, MatrixError
from router.bench.engine import Engine, Facts, LocalConfig
from router.bench.http_engine import ServerConfig
from router.bench.roofline import BYTES, Traffic, cache_values, plain_traffic
from router.models import SILENT, Listener, Model
from router.pool import BackendLoader


@dataclass(frozen=True)
class Fidelity:
    """Relative weight errors ||W - Wq|| / ||W||: the mean over the matrices of each part."""

    body: float  # the language model's layers
    head: float  # the matrix that gives the scores
    vision: float
    # of the layers' products, on other prompts than it was calibrated on: see `MatrixError`
    outputs: float | None = None
    search: float | None = None  # of the 4-bit head that scores all tokens but the best

    @classmethod
    def of(cls, matrices: Sequence[MatrixError]) -> Fidelity:
        """What an export's manifest says; a part that was not rounded has no error."""
        vision = [matrix.error for matrix in matrices if "visual." in matrix.name]
        whole = [matrix for matrix in matrices if not matrix.name.startswith(SEARCH)]
        tables = [matrix.error for matrix in whole if "embed_tokens" in matrix.name]
        heads = [matrix.error for matrix in whole if "lm_head" in matrix.name]
        search = [matrix.error for matrix in matrices if matrix.name.startswith(SEARCH)]
        body = [
            matrix.error
            for matrix in matrices
            if "model.layers." in matrix.name and not matrix.name.startswith("prefill.")
        ]
        outputs = [matrix.output_error for matrix in matrices if matrix.output_error is not None]
        # a tied table is the head
        return cls(
            body=_mean(body),
            head=_mean(heads or tables),
            vision=_mean(vision),
            outputs=_mean(outputs) if outputs else None,
            search=_mean(search) if search else None,
        )

    def text(self, *, vision: bool) -> str:
        """As tables have it: body / head, and the vision tower where that took part."""
        errors = (self.body, self.head, self.vision)[: 3 if vision else 2]
        body, head, *tower = (f"{error:.3f}" if error else "0" for error in errors)
        if self.outputs is not None:
            body += f" (outputs {self.outputs:.3f})"
        if self.search is not None:
            head += f" (past the best {self.search:.3f})"
        return " / ".join([body, head, *tower])


EXACT = Fidelity(0.0, 0.0, 0.0)
"""The checkpoint's own weights, in bfloat16 or in more."""


def _mean(errors: Sequence[float]) -> float:
    return sum(errors) / len(errors) if errors else 0.0


DEFAULT_BACKENDS = ("torch", "genai", "onnx")
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
            from router.bench.rates import weight_bytes

            return Traffic(weight_bytes(self.graph), cache_values(text) * BYTES["float32"])
        return plain_traffic(text, BYTES[facts.numbers]) if facts.numbers in BYTES else None


def check_names(names: Sequence[str]) -> None:
    """RequestError ``backend_not_found``: a backend that was asked for has a name that nobody knows."""
    for name in names:
        backends.capability(name)


def contender(name: str, model: Model, runtime: Runtime, listener: Listener = SILENT) -> Contender:
    """Backend ``name`` with ``model``, whose export is made now if it is needed and not there."""
    loader = BackendLoader(model, runtime, listener=listener)
    candidate = next((each for each in loader.candidates() if each.backend == name), None)
    if candidate is None:
        return Contender(name, problem="there is no backend of that name")
    if candidate.problem is not None:
        return Contender(name, problem=candidate.problem)
    try:
        folder, prepared = loader.prepare(candidate)
        if candidate.traits.reads_export:
            return _with_export(name, model, folder, prepared)
    except (RequestError, BackendError) as error:
        return Contender(name, problem=str(error))
    fidelity = EXACT if name == "torch" else None
    make = LocalConfig(name, folder, model.folder, prepared)
    return Contender(name, make, fidelity=fidelity, disk_bytes=_disk_bytes(folder))


def server(url: str, model: str | None) -> Contender:
    """A server, called by its address."""
    return Contender(url.partition("://")[2].strip("/") or url, ServerConfig(url, model))


def _with_export(name: str, model: Model, folder: Path, runtime: Runtime) -> Contender:
    manifest = Manifest.read(folder)
    numbers = f"{manifest.recipe.precision}, {manifest.recipe.recipe}"
    if manifest.recipe.prefill_precision is not None and name == "onnx":
        numbers += f", {manifest.recipe.prefill_precision} prefill"
    graph = folder / _GRAPHS[name] if name in _GRAPHS else None
    return Contender(
        name,
        LocalConfig(name, folder, model.folder, runtime, numbers),
        fidelity=Fidelity.of(manifest.matrices),
        disk_bytes=sum(map(_disk_bytes, filter(None, (folder, runtime.packed)))),
        graph=graph,
    )


def _disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
