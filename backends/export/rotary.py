"""Rotary embedding by positions in one or three dimensions, computed in the graph: no table is stored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.export.graph import FLOAT, Graph
from backends.qwen3vl import TextConfig


class Rotary(NamedTuple):
    """What onnxruntime's RotaryEmbedding reads: names of values."""

    cos: str  # [B * S, head_dim / 2], a row a token
    sin: str
    rows: str  # int64 [B, S]: which row is each token's


def along_text(graph: Graph, config: TextConfig, position_ids: str) -> Rotary:
    """Turn by ``position_ids`` int64 [B, S]."""
    positions = graph.op("Unsqueeze", graph.op("Cast", position_ids, to=FLOAT), graph.ints(-1))
    return _turn(graph, config, positions, graph.op("Shape", position_ids))


def in_space(graph: Graph, config: TextConfig, position_ids: str) -> Rotary:
    """Turn by ``position_ids`` int64 [3, B, S]: time, row and column, interleaved."""
    chosen = graph.op("Gather", position_ids, graph.constant(axes(config)), axis=0)
    positions = graph.op("Cast", graph.op("Transpose", chosen, perm=[1, 2, 0]), to=FLOAT)
    return _turn(graph, config, positions, graph.op("Shape", position_ids, start=1))


def axes(config: TextConfig) -> NDArray[np.int64]:
    """Which of time, row and column turns each rotary pair, [head_dim / 2].

    Source: ``apply_interleaved_mrope`` of transformers' Qwen3VL: t h w t h w ..., with t in place of an axis
    whose section is used up, and to the end.
    """
    pairs = np.arange(config.head_dim // 2)
    turn = np.zeros_like(pairs)
    for axis in (1, 2):
        turn[(pairs % 3 == axis) & (pairs < 3 * config.mrope_section[axis])] = axis
    return turn


def inverse_frequencies(config: TextConfig) -> NDArray[np.float32]:
    """Radians a position for each rotary pair, [head_dim / 2]."""
    exponent = np.arange(0, config.head_dim, 2).astype(np.float32) / np.float32(config.head_dim)
    # rounded after each step, as PyTorch computes it in float32: at position 262143 the last bit is a 60th of
    # a radian
    powers = np.power(config.rope_theta, exponent.astype(np.float64)).astype(np.float32)
    return np.asarray(1 / powers, np.float32)


def _turn(graph: Graph, config: TextConfig, positions: str, shape: str) -> Rotary:
    """Angles for ``positions`` float [B, S, 1 or head_dim / 2]; ``shape`` is [B, S]."""
    angles = graph.op("Mul", positions, graph.constant(inverse_frequencies(config)))
    flat = graph.op("Reshape", angles, graph.ints(-1, config.head_dim // 2))
    count = graph.op("ReduceProd", shape, graph.ints(0), keepdims=0)
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    rows = graph.op("Reshape", graph.op("Range", zero, count, one), shape)
    return Rotary(graph.op("Cos", flat), graph.op("Sin", flat), rows)
