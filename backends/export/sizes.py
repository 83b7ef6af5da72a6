"""What an export will take, told from the headers of the checkpoint's files: bytes on disk and in memory."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from backends.base import BackendError
from backends.machine import available_memory
from backends.qwen3vl import Config, TextConfig
from backends.store import Recipe, Scheme, Weights

OVERHEAD = 8 << 20  # graphs, manifest, and the space between tensors that start on pages
MEMORY = 1 << 30  # bytes; tensors are read in parts, so a larger model takes no more
_COPIED = (".json", ".jinja", ".txt")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def estimate(folder: Path, recipe: Recipe) -> int:
    """Bytes on disk that the export of the checkpoint in ``folder`` will take, rather more than less."""
    weights = Weights(folder)
    tensors = sum(
        _tensor_bytes(name, shape, recipe) + _prefill_bytes(name, shape, recipe)
        for name, shape in weights.shapes.items()
    )
    copied = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _COPIED)
    return int(tensors) + copied + OVERHEAD


def check_memory(folder: Path, recipe: Recipe) -> None:
    """BackendError ``out_of_memory`` when the machine has too little free to export the checkpoint."""
    free = available_memory()
    needed = MEMORY + (_calibration_bytes(Config.read(folder).text) if recipe.calibrate else 0)
    if free is not None and free < needed:
        raise BackendError(
            f"exporting {folder} needs {needed} bytes of memory, {free} are free; close something, "
            "or export on another machine and copy the folder",
            code="out_of_memory",
        )


def _calibration_bytes(config: TextConfig) -> int:
    """Bytes that calibration takes: for the inputs of the widest matrix, and for the largest matrix."""
    widest = max(config.hidden, config.intermediate, config.heads * config.head_dim)
    # X^T X of each half in float32, and it and its factor in float64; a matrix as it was and as it became
    return 24 * widest**2 + 16 * 2 * config.intermediate * config.hidden


def _tensor_bytes(name: str, shape: tuple[int, ...], recipe: Recipe) -> float:
    """Bytes of one tensor as it is written."""
    values = math.prod(shape)
    if "visual." in name:
        whole = (
            recipe.precision == "fp32"
            if recipe.vision_precision is None
            else recipe.vision_precision == "fp32"
        )
        return values * (4.0 if whole or len(shape) != 2 else 1.1)  # 8 bits, and scales of rows or blocks
    scheme = _scheme(name, *shape, recipe) if len(shape) == 2 else None
    if scheme is None:
        return 4.0 * values
    return _rounded_bytes(shape[0], shape[1], scheme)


def _prefill_bytes(name: str, shape: tuple[int, ...], recipe: Recipe) -> int:
    """Bytes of one tensor in prefill.data: 8 bits a value, and a scale a row."""
    if recipe.prefill_precision is None or "visual." in name or not _LAYER.search(name):
        return 0
    return math.prod(shape) + 4 * shape[0] if len(shape) == 2 else 4 * math.prod(shape)


def _rounded_bytes(rows: int, columns: int, scheme: Scheme) -> float:
    """Bytes with a float32 scale and at most a byte of zero point for each block."""
    return rows * scheme.blocks(columns) * (scheme.block * scheme.bits / 8 + 4 + 1)


def _scheme(name: str, rows: int, columns: int, recipe: Recipe) -> Scheme | None:
    if layer := _LAYER.search(name):
        return recipe.body(int(layer[1]), columns)
    # where it is tied the table is stored as the head is, which takes as many bits or fewer
    if "lm_head" not in name:
        return recipe.embeddings(columns)
    if recipe.best_scores(rows):
        return replace(recipe.upper_head(columns), bits=4 + recipe.rest_bits)
    return recipe.head(columns)
