"""The language model between embeddings and scores, as decoder.onnx, prefill.onnx and text.onnx have it.

`DecoderBody` writes the tensors once and adds its nodes to several graphs: embeddings, layers, head. `Layers`
is the part of it that prefill.onnx has too, with matrices of another `MatrixStore`. What a graph's own inputs
are is in its `GraphRun`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from backends.export.graph import CONTRIB, FLOAT, Graph, Side
from backends.export.head import Head, rounding
from backends.export.matrices import Matrices
from backends.export.quantize import Matrix, moved
from backends.export.rotary import Rotary
from backends.qwen3vl import TextConfig
from backends.store import Recipe, Scheme, Weights

_MODEL = "model.language_model."
_EMBEDDINGS, _HEAD = _MODEL + "embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Layer:
    """One decoder layer in the data file: matrices as the store has them, and the names of its norms."""

    qkv: Any
    out: Any
    gate_up: Any
    down: Any
    before_attention: str
    before_mlp: str
    query_norm: str
    key_norm: str


@dataclass(frozen=True)
class GraphRun:
    """What the layers of one graph read besides the embeddings: names of values, shapes as in `graphs`."""

    rotary: Rotary
    seqlens_k: str
    total_sequence_length: str
    deepstack: tuple[str, ...] = ()


def embedding_table(
    weights: Weights, config: TextConfig, recipe: Recipe
) -> tuple[str, Callable[[Matrix], Matrix]]:
    """The tensor that embeds tokens, and what its rows become in the export."""
    if weights.ties_head:
        return _EMBEDDINGS, rounding(recipe, config.vocab, config.hidden)
    scheme = recipe.embeddings(config.hidden)
    return _EMBEDDINGS, partial(moved, scheme=scheme)


class MatrixStore(Protocol):
    """Where matrices are written, and how graphs multiply by them."""

    def store(self, name: str, sources: Sequence[str], scheme: Scheme | None) -> Any:
        """Write the tensors ``sources`` [rows, columns], one below the other, as the matrix ``name``."""
        ...

    def vector(self, source: str, length: int) -> str:
        """Write a tensor of one axis; return its name."""
        ...

    def multiply(self, graph: Graph, x: str, by: Any, name: str | None = None) -> str:
        """Add ``x`` [..., columns] times the transposed matrix: [..., rows]."""
        ...


class Layers:
    """The decoder layers' tensors in a data file, and the nodes that compute with them."""

    def __init__(
        self,
        weights: Weights,
        config: TextConfig,
        store: MatrixStore,
        scheme: Callable[[int, int], Scheme | None],
    ) -> None:
        """``scheme``: how the matrices of a layer, with rows of so many values, are rounded.

        BackendError names a tensor that is missing or has another shape.
        """
        self.config = config
        self._weights = weights
        self._store = store
        self._scheme = scheme
        self._layers = [self._store_layer(index) for index in range(config.layers)]

    def layers(self, graph: Graph, embeddings: str, run: GraphRun) -> str:
        """Add all layers over ``embeddings`` [B, S, hidden]: the output of the last one, not normalised."""
        return graph.op("Add", *self._through(graph, embeddings, run, self.config.layers))

    def fill_cache(self, graph: Graph, embeddings: str, run: GraphRun) -> None:
        """Add what writes the keys and values of ``embeddings``, and nothing behind the last of them."""
        index = self.config.layers - 1
        x, added = self._through(graph, embeddings, run, index)
        layer = self._layers[index]
        normed, _ = self._join(graph, x, added, layer.before_attention)
        self._attended(graph, index, layer, normed, run)

    def declare_cache(self, graph: Graph) -> None:
        """Declare the cache's inputs and outputs, [B, kv_heads, capacity, head_dim] each."""
        shape: list[Side] = ["batch", self.config.kv_heads, "capacity", self.config.head_dim]
        for index in range(self.config.layers):
            for part in ("key", "value"):
                graph.input(f"past_key_values.{index}.{part}", FLOAT, shape)
                graph.output(f"present.{index}.{part}", FLOAT, shape)

    def _store_layer(self, index: int) -> Layer:
        config, prefix = self.config, f"{_MODEL}layers.{index}."
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim

        def matrix(name: str, columns: int, sources: Mapping[str, int]) -> Any:  # sources: rows of each
            for source, rows in sources.items():
                self._weights.expect(f"{prefix}{source}.weight", (rows, columns))
            full = [f"{prefix}{source}.weight" for source in sources]
            return self._store.store(f"layers.{index}.{name}", full, self._scheme(index, columns))

        def vector(name: str, length: int) -> str:
            return self._store.vector(f"{prefix}{name}.weight", length)

        attention = {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}
        gates = {"mlp.gate_proj": config.intermediate, "mlp.up_proj": config.intermediate}
        return Layer(
            qkv=matrix("qkv", config.hidden, attention),
            out=matrix("out", queries, {"self_attn.o_proj": config.hidden}),
            gate_up=matrix("gate_up", config.hidden, gates),
            down=matrix("down", config.intermediate, {"mlp.down_proj": config.hidden}),
            before_attention=vector("input_layernorm", config.hidden),
            before_mlp=vector("post_attention_layernorm", config.hidden),
            query_norm=vector("self_attn.q_norm", config.head_dim),
            key_norm=vector("self_attn.k_norm", config.head_dim),
        )

    def _through(self, graph: Graph, embeddings: str, run: GraphRun, count: int) -> tuple[str, str]:
        """The first ``count`` layers: two values whose sum is what they give."""
        x, added = embeddings, ""
        for index, layer in enumerate(self._layers[:count]):
            normed, x = self._join(graph, x, added, layer.before_attention)
            attended = self._attended(graph, index, layer, normed, run)
            normed, x = self._join(
                graph, x, self._store.multiply(graph, attended, layer.out), layer.before_mlp
            )
            added = self._mlp(graph, layer, normed)
            if index < len(run.deepstack):
                added = graph.op("Add", added, run.deepstack[index])
        return x, added

    def _attended(self, graph: Graph, index: int, layer: Layer, x: str, run: GraphRun) -> str:
        config, stem = self.config, f"layers.{index}"
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        q, k, v = graph.ops(
            "Split",
            self._store.multiply(graph, x, layer.qkv),
            graph.ints(queries, keys, keys),
            names=[f"{stem}.{part}" for part in "qkv"],
            axis=-1,
        )
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        attended, *_ = graph.ops(
            "GroupQueryAttention",
            self._rotated(graph, q, layer.query_norm, config.heads, run),
            self._rotated(graph, k, layer.key_norm, config.kv_heads, run),
            v,
            *past,
            run.seqlens_k,
            run.total_sequence_length,
            names=[f"{stem}.attended", f"present.{index}.key", f"present.{index}.value"],
            domain=CONTRIB,
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
        )
        return attended

    def _rotated(self, graph: Graph, x: str, norm: str, heads: int, run: GraphRun) -> str:
        """Normalise each head of ``x`` [B, S, heads * head_dim], and turn it by its token's position."""
        by_head = graph.op("Reshape", x, graph.ints(0, 0, heads, self.config.head_dim))
        normed = self._normalise(graph, by_head, norm)
        flat = graph.op("Reshape", normed, graph.ints(0, 0, heads * self.config.head_dim))
        rotary = run.rotary
        return graph.op("RotaryEmbedding", flat, rotary.rows, rotary.cos, rotary.sin, domain=CONTRIB)

    def _mlp(self, graph: Graph, layer: Layer, x: str) -> str:
        size = self.config.intermediate
        both = self._store.multiply(graph, x, layer.gate_up)
        gate, up = graph.ops(
            "Split", both, graph.ints(size, size), names=[f"{both}.gate", f"{both}.up"], axis=-1
        )
        # with alpha 1 this is x * sigmoid(x), SiLU, in one pass
        activated = graph.op("QuickGelu", gate, domain=CONTRIB, alpha=1.0)
        return self._store.multiply(graph, graph.op("Mul", activated, up), layer.down)

    def _join(self, graph: Graph, x: str, added: str, norm: str) -> tuple[str, str]:
        """The normalised sum of the two, and the sum."""
        if not added:
            return self._normalise(graph, x, norm), x
        normed, _, _, total = graph.ops(
            "SkipSimplifiedLayerNormalization",
            added,
            x,
            graph.external(norm),
            names=[f"{added}.normed", "", "", f"{added}.sum"],
            domain=CONTRIB,
            epsilon=self.config.rms_norm_eps,
        )
        return normed, total

    def _normalise(self, graph: Graph, x: str, norm: str) -> str:
        return graph.op(
            "SimplifiedLayerNormalization",
            x,
            graph.external(norm),
            axis=-1,
            epsilon=self.config.rms_norm_eps,
            stash_type=1,
        )


class DecoderBody(Layers):
    """The whole language model: its layers, its head and its embeddings."""

    def __init__(self, weights: Weights, config: TextConfig, recipe: Recipe, matrices: Matrices) -> None:
        """Write the tensors; BackendError names one that is missing or has another shape."""
        super().__init__(weights, config, matrices, recipe.body)
        self._matrices = matrices
        self._norm = matrices.vector(_MODEL + "norm.weight", config.hidden)
        size = (config.vocab, config.hidden)
        weights.expect(_EMBEDDINGS, size)
        if weights.ties_head:
            self.head = self.embeddings = Head.store(matrices, _EMBEDDINGS, recipe, *size)
            return
        weights.expect(_HEAD, size)
        self.head = Head.store(matrices, _HEAD, recipe, *size)
        table = matrices.store("embeddings", [_EMBEDDINGS], recipe.embeddings(config.hidden))
        self.embeddings = Head(table)

    def scores(self, graph: Graph, x: str, name: str) -> str:
        """Add the last norm and the head over ``x`` [..., hidden]: [..., vocab], called ``name``."""
        return self.head.scores(graph, self._matrices, self._normalise(graph, x, self._norm), name)

    def embed(self, graph: Graph, ids: str) -> str:
        """Add the embeddings of ``ids`` int64 [B, S]: [B, S, hidden]."""
        return self.embeddings.gather(graph, self._matrices, ids)

    def describe_embeddings(self) -> str:
        """Where the embedding table stands in the data file: JSON for `backends.onnx.embeddings`."""
        return self._matrices.describe(self.embeddings.table, self.embeddings.rest)
