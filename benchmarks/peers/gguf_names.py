"""What llama.cpp calls the tensors of a Qwen3-VL checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

_TEXT, _VISION = "model.language_model.", "model.visual."
_ENDS = {"embed_tokens": "token_embd", "norm": "output_norm"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_BLOCK = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn_qkv",
    "attn.proj": "attn_out",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
}
_AROUND = {
    "patch_embed.proj": "v.patch_embd",
    "pos_embed": "v.position_embd",
    "merger.norm": "v.post_ln",
    "merger.linear_fc1": "mm.0",
    "merger.linear_fc2": "mm.2",  # 1 is the activation between them
}
_DEEPSTACK = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


def is_vision(name: str) -> bool:
    """Whether a tensor belongs to the vision tower, which llama.cpp reads from a file of its own."""
    return name.startswith(_VISION)


def gguf_name(name: str, deepstack: Sequence[int]) -> str:
    """The name in a GGUF file of checkpoint tensor ``name``; ``deepstack``: the blocks that have mergers.

    KeyError: no Qwen3-VL has such a tensor.
    """
    stem, _, end = name.rpartition(".")
    if is_vision(name):
        return f"{_vision(stem.removeprefix(_VISION), deepstack)}.{end}"
    return f"{_text(stem.removeprefix(_TEXT))}.{end}"


def _text(stem: str) -> str:
    if stem == "lm_head":
        return "output"
    if not stem.startswith("layers."):
        return _ENDS[stem]
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{_LAYER[part]}"


def _vision(stem: str, deepstack: Sequence[int]) -> str:
    if stem.startswith("blocks."):
        _, block, part = stem.split(".", 2)
        return f"v.blk.{block}.{_BLOCK[part]}"
    if stem.startswith("deepstack_merger_list."):
        _, place, part = stem.split(".", 2)
        return f"v.deepstack.{deepstack[int(place)]}.{_DEEPSTACK[part]}"
    return _AROUND[stem]
