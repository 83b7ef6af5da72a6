"""text.onnx and genai_config.json: token ids in, for onnxruntime-genai, over decoder.onnx's weights.

::

    input_ids       int64 [B, S]
    attention_mask  int64 [B, T]   T: tokens in the cache after the run
    position_ids    int64 [B, S]
    past_key_values.0.key, past_key_values.0.value ...  [B, kv_heads, capacity, head_dim]

    logits          [B, 1, vocab]  after the last of the S tokens: a whole prompt's would fill gigabytes
    present.0.key, present.0.value ...
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backends.export.body import DecoderBody, GraphRun, Layers
from backends.export.columns import Columns
from backends.export.graph import FLOAT, INT32, INT64, DataFile, Graph, Side
from backends.export.rotary import along_text, in_space
from backends.qwen3vl import TextConfig
from backends.store import Fields, MatrixError, Weights

DECODER = "decoder.onnx"


def write_decoder(out: Path, body: DecoderBody, data: DataFile, deepstack: int) -> None:
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
    run = GraphRun(in_space(graph, config, places), seqlens_k, total, features)
    x = body.layers(graph, embeddings, run)
    wanted = graph.op("GatherND", x, last, batch_dims=1)
    graph.output(body.scores(graph, wanted, "logits"), FLOAT, ["batch", config.vocab])
    graph.note("embeddings", body.table())
    graph.save(out / DECODER)


MODEL, DATA = "prefill.onnx", "prefill.data"
PREFIX = "prefill."  # of the names under which its errors are noted: the decoder has the same matrices


def write_prefill(out: Path, weights: Weights, config: TextConfig, deepstack: int) -> list[MatrixError]:
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
        layers.fill(graph, embeddings, GraphRun(in_space(graph, config, places), seqlens_k, total, features))
    graph.save(out / MODEL)
    return [error._replace(name=f"{PREFIX}{error.name}") for error in columns.errors]


TEXT = "text.onnx"


def write_text(out: Path, body: DecoderBody, data: DataFile, source: Path) -> None:
    """Write the graph, and the description that onnxruntime-genai reads it by."""
    config = body.config
    graph = Graph("text", data)
    ids = graph.input("input_ids", INT64, ["batch", "tokens"])
    mask = graph.input("attention_mask", INT64, ["batch", "total"])
    places = graph.input("position_ids", INT64, ["batch", "tokens"])
    body.cache(graph)
    held = graph.op("Sub", graph.op("ReduceSum", mask, graph.ints(1), keepdims=0), graph.ints(1))
    total = graph.op("Squeeze", graph.op("Shape", mask, start=1, end=2), graph.ints(0))
    run = GraphRun(along_text(graph, config, places), _int32(graph, held), _int32(graph, total))
    x = body.layers(graph, body.embed(graph, ids), run)
    last = graph.op("Slice", x, graph.ints(-1), graph.ints(2**62), graph.ints(1))
    graph.output(body.scores(graph, last, "logits"), FLOAT, ["batch", 1, config.vocab])
    graph.save(out / TEXT)
    (out / "genai_config.json").write_text(
        json.dumps(_genai_config(config, source), indent=2) + "\n", encoding="utf-8"
    )


def _int32(graph: Graph, value: str) -> str:
    return graph.op("Cast", value, to=INT32)


def _genai_config(config: TextConfig, source: Path) -> dict[str, Any]:
    """Greedy and unlimited: whoever samples above onnxruntime-genai sets what it needs for each request."""
    return {
        "model": {
            "type": "qwen3",
            "context_length": config.context,
            "vocab_size": config.vocab,
            **_tokens(source),
            "decoder": {
                "filename": TEXT,
                "head_size": config.head_dim,
                "hidden_size": config.hidden,
                "num_attention_heads": config.heads,
                "num_hidden_layers": config.layers,
                "num_key_value_heads": config.kv_heads,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": config.context,
            "num_beams": 1,
            "past_present_share_buffer": True,
        },
    }


def _tokens(source: Path) -> dict[str, int | list[int]]:
    """The tokens that begin, pad and end a text, from the generation config or else the text config."""
    text = Fields.read(source / "config.json").section("text_config").values
    path = source / "generation_config.json"
    chosen = {**text, **(Fields.read(path).values if path.is_file() else {})}
    ends = chosen.get("eos_token_id")
    ends = [ends] if isinstance(ends, int) else ends or [0]
    begin, pad = chosen.get("bos_token_id"), chosen.get("pad_token_id")
    return {
        "bos_token_id": ends[-1] if begin is None else begin,
        "eos_token_id": ends,
        "pad_token_id": ends[-1] if pad is None else pad,
    }
