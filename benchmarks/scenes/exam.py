"""Scores a model on fresh scenes and held-out wordings by teacher forcing.

An answer counts when each of its tokens is the likeliest one, which is when greedy decoding says it whole.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from benchmarks.scenes.batch import Batch, Line, converse, pack, size_for
from benchmarks.scenes.draw import Scene, scene
from benchmarks.scenes.model import read, see
from benchmarks.scenes.talk import blind, chat, turn

ROWS = (
    ("single", "list"),
    ("quadrants", "list"),
    ("rows", "list"),
    ("columns", "list"),
    ("quadrants", "place"),
    ("rows", "place"),
    ("columns", "place"),
    ("gradient", "list"),
    ("checkerboard", "list"),
    ("shapes", "list"),
    ("shapes", "place"),
    ("quadrants", "presence"),
    ("quadrants", "count"),
)
EXAM_GRIDS = ((5, 5), (4, 4), (3, 6), (4, 5))


def exam(model: Any, tokenizer: Tokenizer, random: Random, count: int) -> str:
    """Right answers in percent per family, picture first / text first, on one line."""
    model.eval()
    found = []
    for kind, family in ROWS:
        scores = [
            _share(model, tokenizer, kind, family, text_first, random, count) for text_first in (False, True)
        ]
        found.append(f"{kind}.{family} {scores[0]:.0f}/{scores[1]:.0f}")
    lines = [
        converse(tokenizer, [ask(random, True)], None, False, "") for ask in (chat, blind) * (count // 2)
    ]
    found.append(f"text {100 * right_share(model, pack(lines)):.0f}")
    model.train()
    return "  ".join(found)


def _share(
    model: Any, tokenizer: Tokenizer, kind: str, family: str, text_first: bool, random: Random, count: int
) -> float:
    shares: list[float] = []
    for grid in EXAM_GRIDS:
        scenes: list[Scene] = []
        lines: list[Line] = []
        while len(lines) < count // len(EXAM_GRIDS):
            shown = scene(kind, size_for(grid, random), random)
            said = turn(family, shown.facts, random, held_out=True)
            if said is not None:
                scenes.append(shown)
                lines.append(converse(tokenizer, [said], grid, text_first, ""))
        shares.append(right_share(model, pack(lines, scenes, grid)))
    return 100 * sum(shares) / len(shares)


@torch.no_grad()  # type: ignore[untyped-decorator]
def right_share(model: Any, batch: Batch) -> float:
    """The share of conversations whose every answer token is the likeliest one."""
    features = [] if batch.patches is None else see(model.model.visual, batch.patches, batch.grid)
    hidden = read(model.model.language_model, batch.ids, batch.positions, batch.slots, features)
    best = functional.linear(hidden, model.lm_head.weight).argmax(-1)
    right: list[bool] = ((best == batch.targets) | (batch.targets < 0)).all(1).tolist()
    return sum(right) / len(right)
