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
    Prefilled,
    Prompt,
    RequestError,
    Runtime,
    Session,
    Traits,
)

__all__ = [
    "Backend",
    "BackendError",
    "Capability",
    "Logits",
    "Prefilled",
    "Prompt",
    "RequestError",
    "Runtime",
    "Session",
    "Traits",
    "capability",
    "load",
    "names",
    "offered",
    "register",
]

GROUP = "hybrid.backends"  # the entry points by which another package adds a backend

registered: dict[str, type[Backend]] = {}  # by this process, which alone knows them


@dataclass(frozen=True)
class _Shipped:
    """Where a backend of ours lives, and its class's traits, so that asking about it imports nothing."""

    module: str
    attribute: str
    traits: Traits
    needs: tuple[str, ...] = ()
    install: str = ""
    devices: tuple[Device, ...] = ("auto", "cpu", "cuda")


_SHIPPED = {
    "torch": _Shipped(
        "backends.torch.backend",
        "TorchBackend",
        Traits(sees_images=True),
        needs=("torch", "transformers", "safetensors"),
        install="pip install 'hybrid-router[torch]'",
    ),
    "onnx": _Shipped(
        "backends.onnx.backend",
        "OnnxBackend",
        Traits(sees_images=True, reads_export=True, decodes_together=True),
        needs=("onnxruntime",),
        install="pip install onnxruntime",
    ),
    "genai": _Shipped(
        "backends.genai.backend",
        "GenaiBackend",
        Traits(sees_images=False, reads_export=True),
        needs=("onnxruntime", "onnxruntime_genai"),
        install="pip install onnxruntime-genai",
        devices=("auto", "cpu"),
    ),
    "scripted": _Shipped("backends.scripted", "ScriptedBackend", Traits(sees_images=True, for_tests=True)),
}


def names() -> tuple[str, ...]:
    """Every backend that this installation knows, ours first."""
    return tuple(dict.fromkeys([*_SHIPPED, *registered, *plugins()]))


def offered() -> tuple[str, ...]:
    """Those to show to people: ours for tests only where there is a script to play."""
    if "HYBRID_SCRIPT" in os.environ:
        return names()
    return tuple(name for name in names() if name not in _SHIPPED or not _SHIPPED[name].traits.for_tests)


def register(backend: type[Backend]) -> None:
    """Make a backend of one's own known to this process, by its ``name``; a package uses the entry point.

    ValueError: the name is taken, which would answer in another's place, or the class has no ``traits``.
    """
    if (problem := _no_traits(backend)) is not None:
        raise ValueError(problem)
    if backend.name in names():
        raise ValueError(f"there is a backend '{backend.name}' already; choose another name")
    registered[backend.name] = backend


def capability(name: str, device: Device = "auto") -> Capability:
    """What backend ``name`` is, and whether it can be used on this machine and ``device``; loads nothing."""
    if (shipped := _SHIPPED.get(name)) is None:
        return _other_capability(name)
    missing = [module for module in shipped.needs if find_spec(module) is None]
    problem = f"{' and '.join(missing)} not installed: {shipped.install}" if missing else None
    if not missing and device not in shipped.devices:
        problem = f"it does not compute on the device '{device}'"
    return Capability(shipped.traits, problem)


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
def plugins() -> dict[str, EntryPoint]:
    """Backends of other packages; looked for once."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _other(name: str) -> type[Backend]:
    """A backend that is not ours; ImportError: its package cannot be imported."""
    if name in registered:
        return registered[name]
    if name in plugins():
        backend: type[Backend] = plugins()[name].load()
        return backend
    raise RequestError(
        f"no backend is named '{name}'; choose one of {', '.join(names())}",
        code="backend_not_found",
        param="backend",
    )


def _other_capability(name: str) -> Capability:
    try:
        backend = _other(name)
    except RequestError:
        raise
    except Exception as error:  # whatever the code of another package raises; it shall not stop the others
        return Capability(_UNKNOWN, f"its package cannot be imported: {error}")
    if (problem := _no_traits(backend)) is not None:
        return Capability(_UNKNOWN, problem)
    return Capability(backend.traits)


_UNKNOWN = Traits(sees_images=False)  # of what cannot be asked, and is not used


def _no_traits(backend: type[Backend]) -> str | None:
    """Why a class of another package is no backend, in words; None where it says what it is."""
    if isinstance(getattr(backend, "traits", None), Traits):
        return None
    return f"{backend!r} does not say what it is; give the class traits = backends.Traits(sees_images=...)"
