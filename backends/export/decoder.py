"""decoder.onnx: embeddings in, the scores of one token a row out, the cache in place.

::

    inputs_embeds          [B, S, hidden]
    deepstack.0 ...        [B, S, hidden]   added to the output of decoder layer i; zeros where no picture is
    position_ids           int64 [3, B, S]  time, row and column of each token (interleaved MRoPE)
    seqlens_k              int32 [B]        tokens of each row in the cache after the run, less one
    total_sequence_length  int32 []         tokens of the longest row after the run
    last                   int64 [B, 1]     of which of the S tokens of each row the scores are wanted
    past_key_values.0.key, past_key_values.0.value ...  [B, kv_heads, capacity, head_dim]

    logits                 [B, vocab]
    present.0.key, present.0.value ...      the same memory as the past: new tokens are written into it

The metadata entry ``embeddings`` says where the table for inputs_embeds stands in weights.data: a gather
needs no graph.
"""

from __future__ import annotations

from pathlib import Path

from backends.export.body import Body, Run
from backends.export.graph import FLOAT, INT32, INT64, DataFile, Graph, Side
from backends.export.rotary import in_space

MODEL = "decoder.onnx"


def write(out: Path, body: Body, data: DataFile, deepstack: int) -> None:
    """Write the graph for a tower with ``deepstack`` DeepStack features."""
    config = body.config
    graph = Graph("decoder", data)
    hidden: list[Side] = ["batch", "tokens", config.hidden]
    embeddings = graph.input("inputs_embeds", FLOAT, hidden)
    features = tuple(graph.input(f"deepstack.{index}", FLOAT, hidden) for index in range(deepstack))
    places = graph.input("position_ids", INT64, [3, "batch", "tokens"])
    seqlens_k = graph.input("seqlens_k", INT32, ["batch"])
    total = graph.input("total_sequence_length", INT32, [])
    last = graph.input("last", INT64, ["batch", 1])
    body.cache(graph)
    run = Run(in_space(graph, config, places), seqlens_k, total, features)
    x = body.layers(graph, embeddings, run)
    wanted = graph.op("GatherND", x, last, batch_dims=1)
    graph.output(body.scores(graph, wanted, "logits"), FLOAT, ["batch", config.vocab])
    graph.note("embeddings", body.table())
    graph.save(out / MODEL)
