"""Whether a head's upper 4 bits find the best scores: python -m benchmarks.shortlist CHECKPOINT

The head's rows are rounded as an export does it and multiplied by random directions, for each of the heads in
two parts that recipes choose. Ranks count from 1. Nats are the mean KL divergence from the checkpoint's
own head, at a spread of the scores of 4, where the best 256 tokens have most of the probability, as those of
a trained model do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.export.head import rounding
from backends.export.quantize import Matrix, moved
from backends.store import SHORTLIST, Recipe, Weights

Scores = NDArray[np.float32]  # [vocab, directions]
RECIPES = (Recipe(), Recipe(calibrate=True), Recipe(recipe="fast"))
BEST, SPREAD = 20, 4.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--directions", type=int, default=64)
    options = parser.parse_args()
    weights = Weights(options.checkpoint)
    name = next(name for kind in ("lm_head", "embed_tokens") for name in weights.names if kind in name)
    vocab, hidden = weights.shape(name)
    directions = np.random.default_rng(1).standard_normal((hidden, options.directions)).astype(np.float32)

    def scores(become: Callable[[Matrix], Matrix]) -> Scores:
        parts = (weights.read(name, slice(first, first + 8192)) for first in range(0, vocab, 8192))
        return np.concatenate([become(part) @ directions for part in parts])

    exact = scores(lambda rows: rows)
    print(f"{name}, {vocab} tokens, {options.directions} directions, the best {SHORTLIST} with all bits\n")
    print(
        f"| bits | rank of the best, at worst | of the best {BEST} | the best is right | nats | of all bits |"
    )
    print("|---|---|---|---|---|---|")
    for recipe in RECIPES:
        upper = recipe.upper_head(hidden)
        rough = scores(partial(moved, scheme=upper))
        whole = scores(rounding(recipe, vocab, hidden))
        bits = f"{upper.bits + recipe.rest_bits}{', symmetric' * upper.symmetric}"
        print(f"| {bits} | {' | '.join(_row(exact, rough, whole))} |")


def _row(exact: Scores, rough: Scores, whole: Scores) -> list[str]:
    found = np.argsort(-rough, 0)
    ranks = np.argsort(found, 0) + 1
    best = np.take_along_axis(ranks, np.argsort(-whole, 0)[:BEST], 0)
    both = rough.copy()
    np.put_along_axis(both, found[:SHORTLIST], np.take_along_axis(whole, found[:SHORTLIST], 0), 0)
    right = float((both.argmax(0) == exact.argmax(0)).mean())
    nats = (f"{_divergence(exact, scores):.4f}" for scores in (both, whole))
    return [f"{best[0].max()}", f"{best.max()}", f"{right:.0%}", *nats]


def _divergence(exact: Scores, other: Scores) -> float:
    scale = SPREAD / float(exact.std())
    wanted, had = (_logs(scores * scale) for scores in (exact, other))
    return float((np.exp(wanted) * (wanted - had)).sum(0).mean())


def _logs(scores: Scores) -> Scores:
    least = scores - scores.max(0)
    return np.asarray(least - np.log(np.exp(least).sum(0)), np.float32)


if __name__ == "__main__":
    main()
