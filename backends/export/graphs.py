"""The language model's graphs: decoder.onnx, prefill.onnx and text.onnx with its genai_config.json.

decoder.onnx takes embeddings, gives the scores of one token a row, and keeps the cache in place::

    inputs_embeds          [B, S, hidden]
    deepstack.0 ...        [B, S, hidden]   added to the output of decoder layer i; zeros where no image is
    position_ids           int64 [3, B, S]  time, row and column of each token (interleaved MRoPE)
    seqlens_k              int32 [B]        tokens of each row in the cache after the run, less one
    total_sequence_length  int32 []         tokens of the longest row after the run
    last                   int64 [B, 1]     of which of the S tokens of each row the scores are wanted
    past_key_values.0.key, past_key_values.0.value ...  [B, kv_heads, capacity, head_dim]

    logits                 [B, vocab]
    present.0.key, present.0.value ...      the same memory as the past: new tokens are written into it

Its metadata entry ``embeddings`` says where the table for inputs_embeds stands in weights.data: a gather
needs no graph.

prefill.onnx fills a session's cache with a long text, by matrices of 7 bits in prefill.data. Its inputs and
its cache are those of decoder.onnx, for one row; it gives no scores. Products of int8 by int8 are up to twice
as fast as those of 4-bit blocks where many tokens are read at once, and nearer to the checkpoint; where one
token is read they are slower, since they are twice the bytes.

text.onnx takes token ids, for onnxruntime-genai, over decoder.onnx's weights::

    input_ids       int64 [B, S]
    attention_mask  int64 [B, T]   T: tokens in the cache after the run
    position_ids    int64 [B, S]
    past_key_values.0.key, past_key_values.0.value ...  as above

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

DECODER, TEXT = "decoder.onnx", "text.onnx"
PREFILL, PREFILL_DATA = "prefill.onnx", "prefill.data"


def write_decoder(out: Path, body: DecoderBody, data: DataFile, deepstack: int) -> None:
    """Write decoder.onnx over ``data``; ``deepstack``: how many DeepStack features the tower gives."""
    config = body.config
    graph = Graph("decoder", data)
    hidden: list[Side] = ["batch", "tokens", config.hidden]
    embeddings = graph.input("inputs_embeds", FLOAT, hidden)
    features = tuple(graph.input(f"deepstack.{index}", FLOAT, hidden) for index in range(deepstack))
    position_ids = graph.input("position_ids", INT64, [3, "batch", "tokens"])
    seqlens_k = graph.input("seqlens_k", INT32, ["batch"])
    total = graph.input("total_sequence_length", INT32, [])
    last = graph.input("last", INT64, ["batch", 1])
    body.declare_cache(graph)
    run = GraphRun(in_space(graph, config, position_ids), seqlens_k, total, features)
    x = body.layers(graph, embeddings, run)
    scored = graph.op("GatherND", x, last, batch_dims=1)
    graph.output(body.scores(graph, scored, "logits"), FLOAT, ["batch", config.vocab])
    graph.note("embeddings", body.describe_embeddings())
    graph.save(out / DECODER)


def write_prefill(out: Path, weights: Weights, config: TextConfig, deepstack: int) -> list[MatrixError]:
    """Write prefill.onnx and prefill.data; return how far each matrix moved, as ``prefill.`` and its name."""
    with DataFile(out / PREFILL_DATA) as data:
        columns = Columns(weights, data)
        layers = Layers(weights, config, columns, lambda *_: None)  # columns are always rounded to 7 bits
        graph = Graph("prefill", data)
        hidden: list[Side] = [1, "tokens", config.hidden]
        embeddings = graph.input("inputs_embeds", FLOAT, hidden)
        features = tuple(graph.input(f"deepstack.{index}", FLOAT, hidden) for index in range(deepstack))
        position_ids = graph.input("position_ids", INT64, [3, 1, "tokens"])
        seqlens_k = graph.input("seqlens_k", INT32, [1])
        total = graph.input("total_sequence_length", INT32, [])
        layers.declare_cache(graph)
        layers.fill_cache(
            graph, embeddings, GraphRun(in_space(graph, config, position_ids), seqlens_k, total, features)
        )
    graph.save(out / PREFILL)
    # the decoder has matrices of the same names
    return [error._replace(name=f"prefill.{error.name}") for error in columns.errors]


def write_text(out: Path, body: DecoderBody, data: DataFile, source: Path) -> None:
    """Write text.onnx over ``data``, and the genai_config.json that onnxruntime-genai reads it by."""
    config = body.config
    graph = Graph("text", data)
    ids = graph.input("input_ids", INT64, ["batch", "tokens"])
    mask = graph.input("attention_mask", INT64, ["batch", "total"])
    position_ids = graph.input("position_ids", INT64, ["batch", "tokens"])
    body.declare_cache(graph)
    seqlens_k = graph.op("Sub", graph.op("ReduceSum", mask, graph.ints(1), keepdims=0), graph.ints(1))
    total = graph.op("Squeeze", graph.op("Shape", mask, start=1, end=2), graph.ints(0))
    run = GraphRun(along_text(graph, config, position_ids), _int32(graph, seqlens_k), _int32(graph, total))
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
    tokens = {**text, **(Fields.read(path).values if path.is_file() else {})}
    ends = tokens.get("eos_token_id")
    ends = [ends] if isinstance(ends, int) else ends or [0]
    begin, pad = tokens.get("bos_token_id"), tokens.get("pad_token_id")
    return {
        "bos_token_id": ends[-1] if begin is None else begin,
        "eos_token_id": ends,
        "pad_token_id": ends[-1] if pad is None else pad,
    }
