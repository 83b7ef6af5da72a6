"""hybrid's own backends, each with both recipes of export: what the others are compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from backends.base import Runtime
from backends.export.recipe import Recipe, RecipeName
from benchmarks.peers import Peer
from router.bench.contenders import Contender, contender
from router.models import Listener, export_to, find

BACKENDS = {"onnx": "onnxruntime", "genai": "onnxruntime_genai"}


def _contender(
    backend: str, recipe: RecipeName, checkpoint: Path, work: Path, threads: int, listener: Listener
) -> Contender:
    folder = work / f"hybrid-{recipe}"
    export_to(folder, find(str(checkpoint), listener), Recipe(recipe=recipe), listener)
    runtime = Runtime(device="cpu", threads=threads)
    found = contender(backend, find(str(folder), listener), runtime, listener)
    return replace(found, name=_name(backend, recipe))


def _name(backend: str, recipe: RecipeName) -> str:
    return f"hybrid-{backend}-{recipe}"


PEERS = tuple(
    Peer(
        name=_name(backend, recipe),
        module=module,
        install="pip install hybrid-router",
        contender=partial(_contender, backend, recipe),
    )
    for backend, module in BACKENDS.items()
    for recipe in get_args(RecipeName)
)
