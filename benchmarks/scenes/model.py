"""The architecture of `scenes` and a fast forward over stock transformers modules, for training only.

Stock Qwen3-VL runs vision attention picture by picture and makes logits everywhere; here all pictures of a
batch share one grid, so attention is one call, and only answer positions get logits. score.py uses the stock
forward, so a difference between the two would show there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb, apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from benchmarks.scenes.tokenizer import VOCABULARY, control

Grid = tuple[int, int]  # rows and columns of picture tokens (2 x 2 patches each)

TEXT = {
    "model_type": "qwen3_vl_text",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": control("<|endoftext|>"),
    "eos_token_id": control("<|im_end|>"),
    "pad_token_id": control("<|endoftext|>"),
    "dtype": "bfloat16",
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 352,
    "max_position_embeddings": 4096,
    "num_attention_heads": 6,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}
VISION = {
    "model_type": "qwen3_vl",
    "deepstack_visual_indexes": [1, 2, 4],
    "depth": 6,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 96,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "num_heads": 3,
    "num_position_embeddings": 144,
    "out_hidden_size": 192,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
CONFIG = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
    "image_token_id": control("<|image_pad|>"),
    "video_token_id": control("<|video_pad|>"),
    "vision_start_token_id": control("<|vision_start|>"),
    "vision_end_token_id": control("<|vision_end|>"),
    "text_config": TEXT,
    "vision_config": VISION,
}


def build() -> Any:
    """A fresh Qwen3VLForConditionalGeneration in float32."""
    sections = {"text_config": dict(TEXT), "vision_config": dict(VISION)}
    config = Qwen3VLConfig(**{**{key: value for key, value in CONFIG.items() if key != "dtype"}, **sections})
    config.text_config.dtype = config.vision_config.dtype = "float32"
    return Qwen3VLForConditionalGeneration(config).float()


def see(visual: Any, patches: Tensor, grid: Grid) -> list[Tensor]:
    """Main and DeepStack features [pictures, tokens, hidden] of patches [pictures, patches, 1536]."""
    pictures, count, _ = patches.shape
    stream = functional.linear(
        patches, visual.patch_embed.proj.weight.flatten(1), visual.patch_embed.proj.bias
    )
    thw = torch.tensor([[1, grid[0] * 2, grid[1] * 2]])
    cosine, sine = _angles(visual, stream, thw)
    stream = stream + _places(visual, thw)
    features = []
    for number, block in enumerate(visual.blocks):
        stream = stream + _look(block.attn, block.norm1(stream), cosine, sine)
        stream = stream + block.mlp(block.norm2(stream))
        if number in visual.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(number)]
            features.append(merger(stream).view(pictures, count // 4, -1))
    return [visual.merger(stream).view(pictures, count // 4, -1), *features]


def _angles(visual: Any, stream: Tensor, thw: Tensor) -> tuple[Tensor, Tensor]:
    cosine, sine = visual.rotary_pos_emb(stream, get_vision_position_ids(thw, 2))
    return cosine, sine


def _places(visual: Any, thw: Tensor) -> Tensor:
    indices, weights = get_vision_interpolation_indices_and_weights(
        thw, visual.num_grid_per_side, mode="bilinear", align_corners=True, spatial_merge_size=2
    )
    places: Tensor = (visual.pos_embed(indices) * weights[:, :, None]).sum(1)
    return places


def _look(attention: Any, stream: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    pictures, count, width = stream.shape
    heads = attention.qkv(stream).view(pictures, count, 3, attention.num_heads, -1)
    query, key = apply_rotary_pos_emb_vision(heads[:, :, 0], heads[:, :, 1], cosine, sine)
    mixed = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), heads[:, :, 2].transpose(1, 2)
    )
    seen: Tensor = attention.proj(mixed.transpose(1, 2).reshape(pictures, count, width))
    return seen


def read(
    language: Any, ids: Tensor, positions: Tensor, slots: Tensor | None, features: list[Tensor]
) -> Tensor:
    """Last hidden states [batch, tokens, hidden]; slots [batch, picture tokens] says where features go."""
    stream = language.embed_tokens(ids)
    where = None if slots is None else slots[:, :, None].expand(-1, -1, stream.shape[-1])
    if where is not None:
        stream = stream.scatter(1, where, features[0])
    rotary = language.rotary_emb(stream, positions)
    for number, layer in enumerate(language.layers):
        stream = stream + _attend(layer.self_attn, _norm(layer.input_layernorm, stream), rotary)
        stream = stream + layer.mlp(_norm(layer.post_attention_layernorm, stream))
        if where is not None and number + 1 < len(features):
            stream = stream.scatter_add(1, where, features[number + 1])
    return _norm(language.norm, stream)


def _norm(norm: Any, stream: Tensor) -> Tensor:
    return functional.rms_norm(stream, (stream.shape[-1],), norm.weight, norm.variance_epsilon)


def _attend(attention: Any, stream: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    shape = (*stream.shape[:2], -1, attention.head_dim)
    query = _norm(attention.q_norm, attention.q_proj(stream).view(shape)).transpose(1, 2)
    key = _norm(attention.k_norm, attention.k_proj(stream).view(shape)).transpose(1, 2)
    value = attention.v_proj(stream).view(shape).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *rotary)
    # padding is on the right and causal attention never looks right, so no mask is needed
    groups = attention.num_key_value_groups
    mixed = functional.scaled_dot_product_attention(
        query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), is_causal=True
    )
    out: Tensor = attention.o_proj(mixed.transpose(1, 2).reshape(*stream.shape[:2], -1))
    return out
