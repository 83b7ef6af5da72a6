"""prefill.onnx: fills a session's cache with a long text, by matrices of 7 bits in prefill.data.

Its inputs and its cache are those of decoder.onnx, for one row; it gives no scores. Products of int8 by int8
are up to twice as fast as those of 4-bit blocks where many tokens are read at once, and nearer to the
checkpoint; where one token is read they are slower, since they are twice the bytes.
"""

from __future__ import annotations

from pathlib import Path

from backends.export.body import Layers, Run
from backends.export.columns import Columns
from backends.export.graph import FLOAT, INT32, INT64, DataFile, Graph, Side
from backends.export.recipe import MatrixError
from backends.export.rotary import in_space
from backends.qwen3vl.config import TextConfig
from backends.store.weights import Weights

MODEL, DATA = "prefill.onnx", "prefill.data"
PREFIX = "prefill."  # of the names under which its errors are noted: the decoder has the same matrices


def write(out: Path, weights: Weights, config: TextConfig, deepstack: int) -> list[MatrixError]:
    """Write the graph and its data into the folder ``out``; return how far each matrix moved.

    ``deepstack``: how many DeepStack features the tower gives.
    """
    with DataFile(out / DATA) as data:
        columns = Columns(weights, data)
        layers = Layers(weights, config, columns, lambda *_: None)  # they have one way of their own
        graph = Graph("prefill", data)
        hidden: list[Side] = [1, "tokens", config.hidden]
        embeddings = graph.input("inputs_embeds", FLOAT, hidden)
        features = tuple(graph.input(f"deepstack.{index}", FLOAT, hidden) for index in range(deepstack))
        places = graph.input("position_ids", INT64, [3, 1, "tokens"])
        seqlens_k = graph.input("seqlens_k", INT32, [1])
        total = graph.input("total_sequence_length", INT32, [])
        layers.cache(graph)
        layers.fill(graph, embeddings, Run(in_space(graph, config, places), seqlens_k, total, features))
    graph.save(out / MODEL)
    return [error._replace(name=f"{PREFIX}{error.name}") for error in columns.errors]
