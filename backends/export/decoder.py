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

import numpy as np
from numpy.typing import NDArray

from backends.export.body import Body, Run
from backends.export.graph import FLOAT, INT32, INT64, DataFile, Graph, Side
from backends.qwen3vl.config import TextConfig


def write(path: Path, body: Body, data: DataFile, deepstack: int) -> None:
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
    cos, sin = _rotation(graph, body, places)
    x = body.layers(graph, embeddings, Run(cos, sin, _rows(graph, places), seqlens_k, total, features))
    wanted = graph.op("GatherND", x, last, batch_dims=1)
    graph.output(body.scores(graph, wanted, "logits"), FLOAT, ["batch", config.vocab])
    graph.note("embeddings", body.table())
    graph.save(path)


def axes(config: TextConfig) -> NDArray[np.int64]:
    """Which of t, h and w turns each rotary pair, [head_dim / 2].

    Source: ``apply_interleaved_mrope`` of transformers' Qwen3VL: t h w t h w ..., with t in place of
    an axis whose section is used up, and to the end.
    """
    pairs = np.arange(config.head_dim // 2)
    turn = np.zeros_like(pairs)
    for axis in (1, 2):
        turn[(pairs % 3 == axis) & (pairs < 3 * config.mrope_section[axis])] = axis
    return turn


def _rotation(graph: Graph, body: Body, places: str) -> tuple[str, str]:
    """Cosines and sines [B * S, head_dim / 2], a row a token, batch row after batch row."""
    chosen = graph.op("Gather", places, graph.constant(axes(body.config)), axis=0)
    floats = graph.op("Cast", graph.op("Transpose", chosen, perm=[1, 2, 0]), to=FLOAT)
    angles = graph.op("Mul", floats, graph.constant(body.inverse_frequencies()))
    flat = graph.op("Reshape", angles, graph.ints(-1, body.config.head_dim // 2))
    return graph.op("Cos", flat), graph.op("Sin", flat)


def _rows(graph: Graph, places: str) -> str:
    """The numbers 0 ... B * S - 1, [B, S]."""
    shape = graph.op("Shape", places, start=1)
    count = graph.op("ReduceProd", shape, graph.ints(0), keepdims=0)
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    return graph.op("Reshape", graph.op("Range", zero, count, one), shape)
