"""Backends by name: what each can do here, and loading the one that is named."""

from __future__ import annotations

import os
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
    Device,
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
    "offered",
    "register",
]

GROUP = "hybrid.backends"  # the entry points by which another package adds a backend

_registered: dict[str, type[Backend]] = {}


@dataclass(frozen=True)
class _Shipped:
    """Where a backend of ours lives, so that asking about it imports nothing."""

    module: str
    attribute: str
    sees_images: bool
    needs: tuple[str, ...] = ()
    install: str = ""
    reads_export: bool = False
    decodes_together: bool = False
    devices: tuple[Device, ...] = ("auto", "cpu", "cuda")


_SHIPPED = {
    "torch": _Shipped(
        "backends.torch.backend",
        "TorchBackend",
        sees_images=True,
        needs=("torch", "transformers", "safetensors"),
        install="pip install 'hybrid-router[torch]'",
    ),
    "onnx": _Shipped(
        "backends.onnx.backend",
        "OnnxBackend",
        sees_images=True,
        needs=("onnxruntime",),
        install="pip install onnxruntime",
        reads_export=True,
        decodes_together=True,
    ),
    "genai": _Shipped(
        "backends.genai.backend",
        "GenaiBackend",
        sees_images=False,
        needs=("onnxruntime", "onnxruntime_genai"),
        install="pip install onnxruntime-genai",
        reads_export=True,
        devices=("auto", "cpu"),
    ),
    "scripted": _Shipped("backends.scripted", "ScriptedBackend", True),
}


def names() -> tuple[str, ...]:
    """Every backend that this installation knows, ours first."""
    return tuple(dict.fromkeys([*_SHIPPED, *_registered, *_plugins()]))


def offered() -> tuple[str, ...]:
    """Those to show to people: the scripted one only where it is given a script."""
    hidden = () if "HYBRID_SCRIPT" in os.environ else ("scripted",)
    return tuple(name for name in names() if name not in hidden)


def register(backend: type[Backend]) -> None:
    """Make a backend of one's own known to this process, by its ``name``; a package uses the entry point.

    ValueError: the name is taken, which would answer in another's place.
    """
    if backend.name in names():
        raise ValueError(f"there is a backend '{backend.name}' already; choose another name")
    _registered[backend.name] = backend


def capability(name: str, device: Device = "auto") -> Capability:
    """What backend ``name`` can do on this machine and ``device``, without loading it."""
    if (shipped := _SHIPPED.get(name)) is None:
        return _others_capability(name)
    missing = [module for module in shipped.needs if find_spec(module) is None]
    problem = f"{' and '.join(missing)} not installed: {shipped.install}" if missing else None
    if not missing and device not in shipped.devices:
        problem = f"it does not compute on the device '{device}'"
    return Capability(shipped.sees_images, problem, shipped.reads_export, shipped.decodes_together)


def load(name: str, model: Path, runtime: Runtime | None = None) -> Backend:
    """Load backend ``name`` with the model in folder ``model``; only its own libraries are imported."""
    runtime = runtime or Runtime()
    if problem := capability(name, runtime.device).problem:
        raise BackendError(f"backend '{name}' cannot be used: {problem}", code="backend_unavailable")
    backend: type[Backend]
    if (shipped := _SHIPPED.get(name)) is not None:
        backend = getattr(import_module(shipped.module), shipped.attribute)
    else:
        backend = _other(name)
    return backend.load(model, runtime)


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _other(name: str) -> type[Backend]:
    """A backend that is not ours; ImportError: its package cannot be imported."""
    if name in _registered:
        return _registered[name]
    if name in _plugins():
        backend: type[Backend] = _plugins()[name].load()
        return backend
    raise RequestError(
        f"no backend is named '{name}'; choose one of {', '.join(names())}",
        code="backend_not_found",
        param="backend",
    )


def _others_capability(name: str) -> Capability:
    try:
        backend = _other(name)
        return Capability(
            bool(backend.sees_images),
            reads_export=getattr(backend, "reads_export", False),
            decodes_together=getattr(backend, "decodes_together", False),
        )
    except RequestError:
        raise
    except Exception as error:  # whatever the code of another package raises; it shall not stop the others
        return Capability(False, f"its package cannot be imported: {error}")
