"""Images for the vision tower, and what transformers' tower makes of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.export.vision import write
from backends.onnx.features import Features
from backends.qwen3vl.config import Config
from backends.store import MatrixError, Recipe, VisionPrecision, Weights

Rows = NDArray[np.float32]
Grid = tuple[int, int]

GRIDS: list[Grid] = [(16, 16), (24, 24), (18, 24), (2, 60), (64, 96)]

SHAPES: dict[str, dict[str, object]] = {
    "2b": {
        "depth": 24,
        "hidden_size": 1024,
        "num_heads": 16,
        "intermediate_size": 4096,
        "out_hidden_size": 2048,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "8b": {
        "depth": 27,
        "hidden_size": 1152,
        "num_heads": 16,
        "intermediate_size": 4304,
        "out_hidden_size": 4096,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}


def patches(grids: list[Grid], seed: int = 0) -> tuple[Rows, NDArray[np.int64]]:
    """Patches [patches, 1536] of images one after the other, and their grids [images, 3]."""
    count = sum(rows * columns for rows, columns in grids)
    values = np.random.default_rng(seed).uniform(-1, 1, (count, 1536)).astype(np.float32)
    return values, np.array([(1, *grid) for grid in grids])


def reference(visual: object, values: Rows, grid: NDArray[np.int64]) -> list[Rows]:
    """Features, then the DeepStack features, of transformers' tower: [tokens, hidden] each."""
    import torch

    with torch.inference_mode():
        seen = visual(torch.from_numpy(values), grid_thw=torch.from_numpy(grid), return_dict=True)
    return [part.numpy() for part in (seen.pooler_output, *seen.deepstack_features)]


def export(checkpoint: Path, out: Path, precision: VisionPrecision) -> list[MatrixError]:
    out.mkdir(exist_ok=True)
    recipe = Recipe(vision_precision=precision)
    return write(out, Weights(checkpoint), Config.read(checkpoint).vision, recipe)


def flat(features: Features) -> list[Rows]:
    """All features in one list, as ``reference`` gives them."""
    return [features.main, *features.deepstack]


def distance(ours: list[Rows], theirs: list[Rows]) -> float:
    """The largest difference of any value of any feature."""
    assert [part.shape for part in ours] == [part.shape for part in theirs]
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def cosine(ours: list[Rows], theirs: list[Rows]) -> float:
    """The least cosine between two features of the same kind."""
    return min(
        float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in zip(ours, theirs, strict=True)
    )
