"""Backends by name: what each can do here, and loading the one that is named."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from backends.base import (
    Backend,
    BackendError,
    Capability,
    Logits,
    Prompt,
    RequestError,
    Runtime,
    Session,
)

__all__ = [
    "Backend",
    "BackendError",
    "Capability",
    "Logits",
    "Prompt",
    "RequestError",
    "Runtime",
    "Session",
    "capability",
    "load",
    "names",
]

GROUP = "hybrid.backends"  # the entry points by which another package adds a backend


@dataclass(frozen=True)
class _Shipped:
    """Where a backend of ours lives, so that asking about it imports nothing."""

    module: str
    attribute: str
    sees_images: bool
    needs: tuple[str, ...] = ()
    install: str = ""
    reads_export: bool = False


_SHIPPED = {
    "torch": _Shipped(
        "backends.pytorch",
        "TorchBackend",
        sees_images=True,
        needs=("torch", "transformers", "safetensors"),
        install="pip install 'hybrid-router[torch]'",
    ),
    "onnx": _Shipped(
        "backends.ort.backend",
        "OnnxBackend",
        sees_images=True,
        needs=("onnxruntime",),
        install="pip install onnxruntime",
        reads_export=True,
    ),
    "genai": _Shipped(
        "backends.genai.backend",
        "GenaiBackend",
        sees_images=False,
        needs=("onnxruntime", "onnxruntime_genai"),
        install="pip install onnxruntime-genai",
        reads_export=True,
    ),
    "scripted": _Shipped("backends.scripted", "ScriptedBackend", True),
}


def names() -> tuple[str, ...]:
    """Every backend that this installation knows, ours first."""
    return (*_SHIPPED, *(name for name in _plugins() if name not in _SHIPPED))


def capability(name: str) -> Capability:
    """What backend ``name`` can do on this machine, without loading it."""
    if (shipped := _SHIPPED.get(name)) is None:
        return _plugin_capability(_known(name))
    missing = [module for module in shipped.needs if find_spec(module) is None]
    problem = f"{' and '.join(missing)} not installed: {shipped.install}" if missing else None
    return Capability(shipped.sees_images, problem, shipped.reads_export)


def load(name: str, model: Path, runtime: Runtime | None = None) -> Backend:
    """Load backend ``name`` with the model in folder ``model``; only its own libraries are imported."""
    if problem := capability(name).problem:
        raise BackendError(f"backend '{name}' cannot be used: {problem}", code="backend_unavailable")
    backend: type[Backend]
    if (shipped := _SHIPPED.get(name)) is not None:
        backend = getattr(import_module(shipped.module), shipped.attribute)
    else:
        backend = _known(name).load()
    return backend.load(model, runtime or Runtime())


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _known(name: str) -> EntryPoint:
    if name in _plugins():
        return _plugins()[name]
    raise RequestError(
        f"no backend is named '{name}'; choose one of {', '.join(names())}",
        code="backend_not_found",
        param="backend",
    )


def _plugin_capability(entry: EntryPoint) -> Capability:
    try:
        backend = entry.load()
        return Capability(bool(backend.sees_images), reads_export=getattr(backend, "reads_export", False))
    except ImportError as error:
        return Capability(False, f"its package cannot be imported: {error}")
