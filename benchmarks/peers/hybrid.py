"""hybrid's own backends, each with the recipes of export: what the others are compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from backends.base import Runtime
from backends.store import Recipe
from benchmarks.peers import Peer
from router.bench.contenders import Contender, contender
from router.models import Listener, export_to, find

LIBRARIES = {"onnx": "onnxruntime", "genai": "onnxruntime_genai"}
RECIPES = {
    "faithful": Recipe(),
    "faithful-calibrated": Recipe(calibrate=True),
    "fast": Recipe(recipe="fast"),
    "fast-calibrated": Recipe(recipe="fast", calibrate=True),
    "fast-prefill": Recipe(recipe="fast", prefill_precision="int8"),
}


def _contender(
    backend: str, recipe: str, checkpoint: Path, work: Path, threads: int, listener: Listener
) -> Contender:
    folder = work / f"hybrid-{recipe}"
    export_to(folder, find(str(checkpoint), listener), RECIPES[recipe], listener)
    runtime = Runtime(device="cpu", threads=threads)
    found = contender(backend, find(str(folder), listener), runtime, listener)
    return replace(found, name=f"hybrid-{backend}-{recipe}")


PEERS = tuple(
    Peer(
        name=f"hybrid-{backend}-{recipe}",
        module=LIBRARIES[backend],
        install="pip install hybrid-router",
        contender=partial(_contender, backend, recipe),
    )
    for backend in LIBRARIES
    for recipe in RECIPES
    if backend == "onnx" or RECIPES[recipe].prefill_precision is None  # which only onnx reads
)
