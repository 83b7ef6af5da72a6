"""The graph of the vision tower: patches of any grid in, features and DeepStack features out.

One run reads images of one grid. What depends on it (``qwen3vl.vision_positions``) is an input, so that no
size is built into the graph::

    patches  float32 [images, patches, 1536]
    indices  int64   [4, patches]          VisionPositions.indices, transposed
    weights  float32 [4, patches, 1]       VisionPositions.weights, transposed
    cos, sin float32 [patches, head_dim / 2]

    features float32 [images, patches / 4, out_hidden]
    deepstack.0, deepstack.1 ...           as features, one for each of ``VisionConfig.deepstack``

The attention is onnxruntime's tiled one: memory grows with the patches, not with their square.
"""

from __future__ import annotations

import numpy as np

from backends.export.graph import CONTRIB, FLOAT, INT64, Graph
from backends.export.vision.linear import PREFIX, Linears, Tensors
from backends.export.vision.rotation import Rotated
from backends.qwen3vl import CHANNELS, PATCH_VALUES, VisionConfig

TAPS = 4  # entries of the position table that a patch has a share of
_EPSILON = 1e-6  # of every LayerNorm; no config says it


class Tower:
    """The graph while it is written; values are names, as in ``Graph``."""

    def __init__(
        self,
        graph: Graph,
        tensors: Tensors | Rotated,
        config: VisionConfig,
        linears: Linears,
    ) -> None:
        self._graph = graph
        self._tensors = tensors
        self._turn = tensors.turn if isinstance(tensors, Rotated) else None
        self._config = config
        self._linears = linears
        self._merged = config.hidden * config.merge**2

    def build(self) -> None:
        """Add every node, from the inputs to the outputs."""
        graph, config = self._graph, self._config
        patches = graph.input("patches", FLOAT, ["images", "patches", PATCH_VALUES])
        positions = self._positions()
        rotary = [graph.input(name, FLOAT, ["patches", self._head_dim // 2]) for name in ("cos", "sin")]
        for name in ("features", *(f"deepstack.{index}" for index in range(len(config.deepstack)))):
            graph.output(name, FLOAT, ["images", "tokens", config.out_hidden])
        # pixels have 255 levels, and this matrix is a hundredth of the work: rounding it would gain nothing
        shape = (config.hidden, CHANNELS, config.temporal_patch, config.patch, config.patch)
        x, change = self._linears.add(patches, "patch_embed.proj", shape, exact=True), positions
        for block in range(config.depth):
            x, change = self._block(x, change, f"blocks.{block}", rotary)
            if block in config.deepstack:
                self._deepstack(graph.op("Add", x, change), config.deepstack.index(block))
        _, normed = self._join(x, change, "merger.norm")
        self._mlp(self._side_by_side(normed), "merger", "features")

    @property
    def _head_dim(self) -> int:
        return self._config.hidden // self._config.heads

    def _positions(self) -> str:
        """The position embeddings [1, patches, hidden]: each patch's shares of four entries of the table."""
        graph = self._graph
        table = self._tensor("pos_embed.weight", self._config.position_embeddings, self._config.hidden)
        indices = graph.input("indices", INT64, [TAPS, "patches"])
        weights = graph.input("weights", FLOAT, [TAPS, "patches", 1])
        # one tap after the other: all of them at once would be the largest value of a big image
        taps = (self._split(indices, "index", TAPS, 0), self._split(weights, "weight", TAPS, 0))
        total = ""
        for index, weight in zip(*taps, strict=True):
            part = graph.op("Mul", graph.op("Gather", table, index), weight)
            total = graph.op("Add", total, part) if total else part
        return total

    def _block(self, x: str, change: str, name: str, rotary: list[str]) -> tuple[str, str]:
        """One block over ``x + change``; returns what is to be added again, so that the next norm can."""
        config = self._config
        x, normed = self._join(x, change, f"{name}.norm1")
        x, normed = self._join(x, self._attention(normed, f"{name}.attn", rotary), f"{name}.norm2")
        wide = self._linears.add(normed, f"{name}.mlp.linear_fc1", (config.intermediate, config.hidden))
        wide = self._graph.op("Gelu", wide, approximate="tanh")
        return x, self._linears.add(wide, f"{name}.mlp.linear_fc2", (config.hidden, config.intermediate))

    def _attention(self, normed: str, name: str, rotary: list[str]) -> str:
        graph, config = self._graph, self._config
        joined = self._linears.add(normed, f"{name}.qkv", (3 * config.hidden, config.hidden))
        query, key, value = self._split(joined, f"{name}.qkv", 3, -1)
        turned = [
            graph.op("RotaryEmbedding", part, graph.ints(0), *rotary, domain=CONTRIB) for part in (query, key)
        ]
        attended = graph.op("MultiHeadAttention", *turned, value, domain=CONTRIB, num_heads=config.heads)
        return self._linears.add(attended, f"{name}.proj", (config.hidden, config.hidden))

    def _deepstack(self, x: str, index: int) -> None:
        # these mergers norm what stands side by side, the main one norms each patch
        name = f"deepstack_merger_list.{index}"
        if self._turn is not None:
            # their norm takes the mean over four patches: it needs the checkpoint's own channels
            x = self._graph.op("MatMul", x, self._graph.constant(self._turn.T, f"{name}.turn"))
        normed = self._norm(self._side_by_side(x), f"{name}.norm", self._merged)
        self._mlp(normed, name, f"deepstack.{index}")

    def _side_by_side(self, x: str) -> str:
        """The patches of a merge block as one value: [images, patches / 4, 4 * hidden]."""
        return self._graph.op("Reshape", x, self._graph.ints(0, -1, self._merged))

    def _mlp(self, x: str, merger: str, output: str) -> None:
        """A merger's two matrices; its gelu is the exact one, unlike the blocks'."""
        wide = self._linears.add(x, f"{merger}.linear_fc1", (self._merged, self._merged))
        wide = self._graph.op("Gelu", wide, approximate="none")
        shape = (self._config.out_hidden, self._merged)
        self._linears.add(wide, f"{merger}.linear_fc2", shape, output=output)

    def _join(self, x: str, change: str, norm: str) -> tuple[str, str]:
        """``x + change``, and its norm."""
        graph = self._graph
        total = graph.op("Add", x, change)
        if self._turn is None:
            return total, self._norm(total, norm, self._config.hidden)
        # the first coordinate is the mean; the scale and the shift are in the matrix that follows
        ones = np.ones(self._config.hidden, np.float32)
        centred = graph.op(
            "Mul", total, graph.constant(np.where(np.arange(len(ones)) > 0, ones, np.float32(0)))
        )
        scale = graph.constant(ones)
        return total, graph.op("SimplifiedLayerNormalization", centred, scale, epsilon=_EPSILON, axis=-1)

    def _norm(self, x: str, name: str, size: int) -> str:
        scale, shift = (self._tensor(f"{name}.{part}", size) for part in ("weight", "bias"))
        return self._graph.op("LayerNormalization", x, scale, shift, epsilon=_EPSILON, axis=-1)

    def _split(self, x: str, name: str, parts: int, axis: int) -> tuple[str, ...]:
        names = [f"{name}.{part}" for part in range(parts)]
        return self._graph.ops("Split", x, names=names, axis=axis, num_outputs=parts)

    def _tensor(self, name: str, *shape: int) -> str:
        """A tensor of the checkpoint as it is."""
        self._tensors.expect(PREFIX + name, shape)
        return self._graph.constant(self._tensors.read(PREFIX + name), name)
