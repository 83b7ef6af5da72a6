"""The tensors that a Qwen3-VL of a certain shape is made of, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backends.qwen3vl.config import Config
from backends.store import Weights

_TEXT, _VISION = "model.language_model.", "model.visual."
_LAYER = (
    *("input_layernorm", "post_attention_layernorm"),
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
)
_BLOCK = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")
_MERGER = ("norm", "linear_fc1", "linear_fc2")
_BUFFERS = ("rotary_emb.inv_freq", "position_ids", "masked_bias")  # of older savers; computed anew


def tensor_names(config: Config) -> Iterator[str]:
    """Every tensor of a model with this config.json, an output matrix of its own too."""
    yield from (f"{_TEXT}embed_tokens.weight", f"{_TEXT}norm.weight", "lm_head.weight")
    for index in range(config.text.layers):
        yield from (f"{_TEXT}layers.{index}.{name}.weight" for name in _LAYER)
    yield f"{_VISION}pos_embed.weight"
    modules = ["patch_embed.proj", *(f"merger.{name}" for name in _MERGER)]
    modules += [f"blocks.{index}.{name}" for index in range(config.vision.depth) for name in _BLOCK]
    mergers = range(len(config.vision.deepstack))
    modules += [f"deepstack_merger_list.{index}.{name}" for index in mergers for name in _MERGER]
    yield from (f"{_VISION}{module}.{part}" for module in modules for part in ("weight", "bias"))


def left_out(folder: Path) -> tuple[str, ...]:
    """What a checkpoint has and no backend reads although an answer may depend on it: a sentence each.

    transformers leaves the same out.
    """
    weights = Weights(folder)
    known = set(tensor_names(Config.read(folder)))
    ours = [name for name in weights.names if name.startswith((_TEXT, _VISION, "lm_head."))]
    strange = [name for name in ours if name not in known and not name.endswith(_BUFFERS)]
    if not strange:
        return weights.notices
    whose = f"'{strange[0]}'" + (f" and {len(strange) - 1} more are" if len(strange) > 1 else " is")
    return (*weights.notices, f"{folder}: {whose} not of the model that config.json describes, and not read")
