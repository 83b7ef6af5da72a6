"""Write a random Qwen3-VL checkpoint of a real shape, to measure speed and memory without the real weights.

    python benchmarks/make_checkpoint.py --shape 2b /tmp/random-2b

Weights are bfloat16 and Gaussian with the spread of their fan-in; biases and norms are away from 0 and 1, so
that leaving one out shows. The same seed gives the same bytes. The tokenizer is the embedded model's: control
tokens stand at Qwen's ids (image pad 151655), ids in between decode to filler words that no text becomes, and
a text takes more tokens than with Qwen's own vocabulary. Only numpy is needed; memory stays below 300 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import router

EMBEDDED = Path(router.__file__).parent / "scenes"
SHARD = 5_000_000_000  # bytes; where transformers 4.57 starts the next file
CHUNK = 1 << 22  # values drawn at once
CONTROLS = 14  # the last tokens of the embedded vocabulary, in the order of Qwen's, which start at:
FIRST_CONTROL = 151643


@dataclass(frozen=True)
class Shape:
    """The sizes that tell one Qwen3-VL from another."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    tied: bool
    depth: int = 24
    vision_hidden: int = 1024
    vision_intermediate: int = 4096
    deepstack: tuple[int, ...] = (5, 11, 17)
    kv_heads: int = 8
    head_dim: int = 128
    vision_heads: int = 16
    positions: int = 2304
    vocab: int = 151936
    context: int = 262144
    section: tuple[int, int, int] = (24, 20, 20)

    @property
    def first_control(self) -> int:
        """The id of ``<|endoftext|>``, the first control token."""
        return FIRST_CONTROL if self.vocab > FIRST_CONTROL else self.vocab - CONTROLS


SHAPES = {
    "tiny": Shape(64, 4, 4, 96, False, 4, 32, 64, (0, 1, 2), 2, 16, 2, 64, 1024, 4096, (4, 2, 2)),
    "2b": Shape(2048, 28, 16, 6144, True),
    "4b": Shape(2560, 36, 32, 9728, True),
    "8b": Shape(4096, 36, 32, 12288, False, 27, 1152, 4304, (8, 16, 24)),
}


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor's name and shape, as the real checkpoints have them."""
    text, hidden = "model.language_model.", shape.hidden
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield text + "embed_tokens.weight", (shape.vocab, hidden)
    for layer in range(shape.layers):
        at = f"{text}layers.{layer}."
        yield at + "input_layernorm.weight", (hidden,)
        yield at + "self_attn.q_proj.weight", (queries, hidden)
        yield at + "self_attn.k_proj.weight", (keys, hidden)
        yield at + "self_attn.v_proj.weight", (keys, hidden)
        yield at + "self_attn.o_proj.weight", (hidden, queries)
        yield at + "self_attn.q_norm.weight", (shape.head_dim,)
        yield at + "self_attn.k_norm.weight", (shape.head_dim,)
        yield at + "post_attention_layernorm.weight", (hidden,)
        yield at + "mlp.gate_proj.weight", (shape.intermediate, hidden)
        yield at + "mlp.up_proj.weight", (shape.intermediate, hidden)
        yield at + "mlp.down_proj.weight", (hidden, shape.intermediate)
    yield text + "norm.weight", (hidden,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocab, hidden)
    yield from _vision_tensors(shape)


def _vision_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    vision, width, inner = "model.visual.", shape.vision_hidden, shape.vision_intermediate
    yield vision + "patch_embed.proj.weight", (width, 3, 2, 16, 16)
    yield vision + "patch_embed.proj.bias", (width,)
    yield vision + "pos_embed.weight", (shape.positions, width)
    for block in range(shape.depth):
        at = f"{vision}blocks.{block}."
        yield from _biased(at + "norm1", width)
        yield from _biased(at + "norm2", width)
        yield from _biased(at + "attn.qkv", 3 * width, width)
        yield from _biased(at + "attn.proj", width, width)
        yield from _biased(at + "mlp.linear_fc1", inner, width)
        yield from _biased(at + "mlp.linear_fc2", width, inner)
    deepstack = [(f"deepstack_merger_list.{place}", 4 * width) for place in range(len(shape.deepstack))]
    for name, normed in [("merger", width), *deepstack]:
        yield from _biased(f"{vision}{name}.norm", normed)
        yield from _biased(f"{vision}{name}.linear_fc1", 4 * width, 4 * width)
        yield from _biased(f"{vision}{name}.linear_fc2", shape.hidden, 4 * width)


def _biased(name: str, *sides: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name + ".weight", sides
    yield name + ".bias", sides[:1]


def values(name: str, shape: tuple[int, ...], seed: int) -> Iterator[NDArray[np.uint16]]:
    """A tensor's random values as bfloat16 bits, piece by piece; the same whatever else is written."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    spread = 0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
    middle = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
    left = math.prod(shape)
    while left:
        drawn = random.standard_normal(min(left, CHUNK), np.float32)
        yield bfloat16(drawn * np.float32(spread) + np.float32(middle))
        left -= len(drawn)


def bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to the nearest, halves to even."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_weights(folder: Path, shape: Shape, seed: int, shard: int = SHARD) -> None:
    """One safetensors file, or several and their index."""
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, sides in tensors(shape):
        if size and size + 2 * math.prod(sides) > shard:
            shards.append([])
            size = 0
        shards[-1].append((name, sides))
        size += 2 * math.prod(sides)
    files = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = ["model.safetensors"]
    else:
        total = sum(2 * math.prod(sides) for _, sides in tensors(shape))
        places = {name: file for file, part in zip(files, shards, strict=True) for name, _ in part}
        _write_json(
            folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places}
        )
    for file, part in zip(files, shards, strict=True):
        _write_shard(folder / file, part, seed)


def _write_shard(path: Path, part: Sequence[tuple[str, tuple[int, ...]]], seed: int) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, sides in part:
        start, end = end, end + 2 * math.prod(sides)
        entries[name] = {"dtype": "BF16", "shape": sides, "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the data starts on a multiple of 8 bytes
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for name, sides in part:
            for piece in values(name, sides, seed):
                stream.write(piece.tobytes())


def write_config(folder: Path, shape: Shape) -> None:
    """config.json in the style of transformers 4.57 (the embedded model's is), and generation_config.json."""
    end, answer_end = shape.first_control, shape.first_control + 2  # <|endoftext|> and <|im_end|>
    config = json.loads((EMBEDDED / "config.json").read_bytes())
    config["text_config"] |= {
        "bos_token_id": end, "eos_token_id": answer_end, "pad_token_id": end,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": shape.section, "rope_type": "default"},
        "rope_theta": 5000000,
        "tie_word_embeddings": shape.tied,
        "vocab_size": shape.vocab,
    }  # fmt: skip
    config["vision_config"] |= {
        "depth": shape.depth,
        "hidden_size": shape.vision_hidden, "out_hidden_size": shape.hidden,
        "num_heads": shape.vision_heads,
        "intermediate_size": shape.vision_intermediate,
        "num_position_embeddings": shape.positions,
        "deepstack_visual_indexes": shape.deepstack,
    }  # fmt: skip
    tokens = {"vision_start": 9, "vision_end": 10, "image": 12, "video": 13}
    config |= {f"{name}_token_id": end + place for name, place in tokens.items()}
    _write_json(folder / "config.json", config | {"tie_word_embeddings": shape.tied})
    generation = {"bos_token_id": end, "pad_token_id": end, "eos_token_id": [answer_end, end]}
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0}
    _write_json(folder / "generation_config.json", generation | sampling)


def write_tokenizer(folder: Path, shape: Shape) -> None:
    """The embedded model's tokenizer and template, its control tokens at this shape's ids."""
    shutil.copyfile(EMBEDDED / "chat_template.jinja", folder / "chat_template.jinja")
    tokenizer = json.loads((EMBEDDED / "tokenizer.json").read_bytes())
    settings = json.loads((EMBEDDED / "tokenizer_config.json").read_bytes())
    vocabulary = tokenizer["model"]["vocab"]
    moved = shape.first_control - tokenizer["added_tokens"][0]["id"]
    # between the words of the embedded vocabulary and the control tokens, words that no merge leads to
    vocabulary |= {f"\u0120x{number}": number for number in range(len(vocabulary), shape.first_control)}
    for token in tokenizer["added_tokens"]:
        token["id"] += moved
        vocabulary[token["content"]] = token["id"]
    added = settings["added_tokens_decoder"]
    settings["added_tokens_decoder"] = {str(int(number) + moved): token for number, token in added.items()}
    settings["model_max_length"] = shape.context
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    _write_json(folder / "tokenizer_config.json", settings)
    limits = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}}
    preprocessor = json.loads((EMBEDDED / "preprocessor_config.json").read_bytes())
    _write_json(folder / "preprocessor_config.json", preprocessor | limits)


def write(folder: Path, shape: Shape, seed: int = 0) -> None:
    """A whole checkpoint folder."""
    folder.mkdir(parents=True)
    write_config(folder, shape)
    write_tokenizer(folder, shape)
    write_weights(folder, shape, seed)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", type=Path, help="a new folder")
    options = parser.parse_args()
    write(options.out, SHAPES[options.shape], options.seed)
