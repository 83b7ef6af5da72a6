"""The matrix that gives the scores: read whole, or searched by its upper bits and read whole for the best.

A head of 8 bits is a third of what INT4 decoding reads. Few of its rows matter: those of the tokens that may
be chosen. So its codes stand in two parts: the upper 4 bits, which are a matrix of 4 bits by themselves, and
the rest. The upper ones give every token a score, and for the rows of the best the rest is multiplied too and
added. What is best with all bits is among those, unless the rest moves it past hundreds of others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from backends.export.graph import Graph
from backends.export.matrices import Matrices, Stored
from backends.export.quantize import Matrix, dequantise, moved, quantise, quantise_rest, rest_of
from backends.store import SEARCH, Recipe


@dataclass(frozen=True)
class Head:
    """The head in the data file, and the nodes that read it."""

    table: Stored  # the whole, or the upper bits
    rest: Stored | None = None
    best: int = 0  # how many scores are computed with the rest

    @classmethod
    def store(cls, matrices: Matrices, source: str, recipe: Recipe, vocab: int, hidden: int) -> Head:
        """Write the tensor ``source`` [vocab, hidden] as the recipe says."""
        best = recipe.best_scores(vocab)
        if not best:
            return cls(matrices.store("head", [source], recipe.head(hidden)))
        upper = matrices.store("head", [source], recipe.upper_head(hidden))
        matrices.errors[-1] = matrices.errors[-1]._replace(name=SEARCH + source)
        return cls(upper, matrices.store_rest("head.rest", source, upper, recipe.rest_bits), best)

    def scores(self, graph: Graph, matrices: Matrices, x: str, name: str) -> str:
        """Add the scores of ``x`` [..., hidden]: [..., vocab], called ``name``."""
        if self.rest is None:
            return matrices.multiply(graph, x, self.table, name)
        rough = matrices.multiply(graph, x, self.table)
        rough_best, tokens = graph.ops(
            "TopK", rough, graph.ints(self.best), names=[f"{name}.found", f"{name}.best"], axis=-1, sorted=0
        )
        column = graph.op("Unsqueeze", x, graph.ints(-1))
        rest = graph.op("MatMul", matrices.gather(graph, tokens, self.rest), column)
        best = graph.op("Add", rough_best, graph.op("Squeeze", rest, graph.ints(-1)))
        return graph.op("ScatterElements", rough, tokens, best, name=name, axis=-1)

    def gather(self, graph: Graph, matrices: Matrices, ids: str) -> str:
        """Add the rows that ``ids`` int64 [...] name: float32 [..., hidden]."""
        rows = matrices.gather(graph, ids, self.table)
        if self.rest is None:
            return rows
        return graph.op("Add", rows, matrices.gather(graph, ids, self.rest))


def rounding(recipe: Recipe, vocab: int, columns: int) -> Callable[[Matrix], Matrix]:
    """What a head's rows [..., columns] become."""
    if recipe.best_scores(vocab):
        upper, rest = recipe.upper_head(columns), rest_of(recipe.upper_head(columns), recipe.rest_bits)

        def split(rows: Matrix) -> Matrix:
            rounded = quantise(rows, upper)
            both = dequantise(rounded, upper, columns)
            return both + dequantise(quantise_rest(rows, rounded, upper, rest), rest, columns)

        return split
    return partial(moved, scheme=recipe.head(columns))
