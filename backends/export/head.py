"""The matrix that gives the scores: read whole, or searched at 4 bits and read at 8 where the best are.

A head of 8 bits is a third of what INT4 decoding reads. Few of its rows matter: those of the tokens that may
be chosen. So a second copy of 4 bits gives every token a score, and the rows of the best are multiplied once
more at 8 bits. What is best by 8 bits is among the best by 4 unless it moves past hundreds of others.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.export.graph import Graph
from backends.export.matrices import Matrices, Stored
from backends.export.recipe import Recipe

PREFIX = "shortlist."  # of the name under which the error of the 4-bit copy is noted


@dataclass(frozen=True)
class Head:
    """The head in the data file, and the nodes that multiply by it."""

    table: Stored
    search: Stored | None = None  # 4 bits: finds the best scores
    best: int = 0  # how many of them are computed by ``table``

    @classmethod
    def store(cls, matrices: Matrices, source: str, recipe: Recipe, vocab: int, hidden: int) -> Head:
        """Write the tensor ``source`` [vocab, hidden] as the recipe says, once or twice."""
        table = matrices.store("head", [source], recipe.head(hidden))
        best = recipe.best_scores(vocab)
        if not best:
            return cls(table)
        search = matrices.store("head.search", [source], recipe.search_head(hidden))
        matrices.errors[-1] = matrices.errors[-1]._replace(name=PREFIX + source)
        return cls(table, search, best)

    def scores(self, graph: Graph, matrices: Matrices, x: str, name: str) -> str:
        """Add the scores of ``x`` [..., hidden]: [..., vocab], called ``name``."""
        if self.search is None:
            return matrices.multiply(graph, x, self.table, name)
        rough = matrices.multiply(graph, x, self.search)
        _, tokens = graph.ops(
            "TopK", rough, graph.ints(self.best), names=[f"{name}.rough", f"{name}.best"], axis=-1, sorted=0
        )
        rows = matrices.gather(graph, tokens, self.table)
        column = graph.op("Unsqueeze", x, graph.ints(-1))
        exact = graph.op("Squeeze", graph.op("MatMul", rows, column), graph.ints(-1))
        return graph.op("ScatterElements", rough, tokens, exact, name=name, axis=-1)
