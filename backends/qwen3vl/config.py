"""The numbers of a Qwen3-VL, read from its ``config.json``, and the tensors that such a model is made of.

Anything the code could not compute exactly as the model was trained is refused here, before a weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backends.qwen3vl.kinds import SERVED, check_kind
from backends.store import Fields, Weights

PATCH = 16  # pixels a side
TEMPORAL_PATCH, MERGE, CHANNELS = 2, 2, 3
PATCH_VALUES = CHANNELS * TEMPORAL_PATCH * PATCH * PATCH  # 1536: one row of ``Prompt.patches``
_THETA = 10_000  # of the tower's rotary embedding, which turns by rows and columns
_STRIDES = ("in_channels", "patch_size", "temporal_patch_size", "spatial_merge_size")


@dataclass(frozen=True)
class TextConfig:
    """The language model's shape."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int  # most tokens of a prompt and its answer: max_position_embeddings
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]  # rotary pairs that follow t, h and w, interleaved
    tie: bool  # whether the output matrix is the embedding table


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower's shape."""

    hidden: int
    depth: int
    heads: int
    intermediate: int
    out_hidden: int
    patch: int
    temporal_patch: int
    merge: int
    position_embeddings: int
    deepstack: tuple[int, ...]  # after which blocks a DeepStack feature is taken

    @property
    def side(self) -> int:
        """Rows, and columns, of the square table of position embeddings."""
        return math.isqrt(self.position_embeddings)


@dataclass(frozen=True)
class Config:
    """What every part of this project needs to know of a model."""

    text: TextConfig
    vision: VisionConfig
    image_token: int
    video_token: int
    vision_start_token: int
    vision_end_token: int

    @classmethod
    def read(cls, folder: Path) -> Config:
        """Read ``folder/config.json`` as transformers 4.57 or 5 writes it.

        Raises BackendError ``model_invalid``, naming the file and the field, for anything that is not a plain
        Qwen3-VL.
        """
        top = Fields.read(folder / "config.json")
        check_kind(top)
        top.expect("model_type", SERVED, required=True)
        top.absent("quantization_config", "use a checkpoint with plain weights")
        for part in (top, top.section("text_config"), top.section("vision_config")):
            part.absent("per_layer_config", "layers that differ from each other are not computed")
            part.expect("is_encoder_decoder", False)
        text, vision = _text(top), _vision(top.section("vision_config"))
        if vision.out_hidden != text.hidden:
            raise top.bad(
                "vision_config.out_hidden_size", f"text_config.hidden_size, {text.hidden}", vision.out_hidden
            )
        if len(vision.deepstack) > text.layers:
            raise top.bad(
                "vision_config.deepstack_visual_indexes", f"at most {text.layers} long", vision.deepstack
            )
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        return cls(text, vision, *(top.whole(name, least=0, most=text.vocab - 1) for name in names))


def _text(top: Fields) -> TextConfig:
    text = top.section("text_config")
    text.expect("hidden_act", "silu")
    text.expect("attention_bias", False)
    text.expect("is_causal", True)
    _whole_attention(text)
    heads = text.whole("num_attention_heads")
    head_dim = text.whole("head_dim")
    kv_heads = text.whole("num_key_value_heads")
    if heads % kv_heads:
        raise text.bad("num_key_value_heads", f"a divisor of num_attention_heads, {heads}", kv_heads)
    theta, section = _rope(text, head_dim)
    ties = top if "tie_word_embeddings" in top.values else text
    return TextConfig(
        hidden=text.whole("hidden_size"),
        layers=text.whole("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=text.whole("intermediate_size"),
        vocab=text.whole("vocab_size"),
        context=text.whole("max_position_embeddings"),
        rms_norm_eps=text.number("rms_norm_eps"),
        rope_theta=theta,
        mrope_section=section,
        tie=ties.flag("tie_word_embeddings", default=False),
    )


def _rope(text: Fields, head_dim: int) -> tuple[float, tuple[int, int, int]]:
    # transformers 5 keeps theta beside the sections, 4.57 keeps it in text_config itself; 5 goes by the older
    # name where both are there
    older = bool(text.values.get("rope_scaling")) or text.values.get("rope_parameters") is None
    rope = text.section("rope_scaling" if older else "rope_parameters")
    rope.expect("rope_type", "default")
    rope.expect("type", "default")
    rope.expect("mrope_interleaved", True)
    theta = (rope if "rope_theta" in rope.values else text).number("rope_theta")
    section = rope.wholes("mrope_section")
    if len(section) != 3 or 2 * sum(section) != head_dim:
        raise rope.bad(
            "mrope_section", f"three numbers that sum to half of head_dim, {head_dim / 2:g}", section
        )
    return theta, (section[0], section[1], section[2])


def _whole_attention(text: Fields) -> None:
    """Refuse layers that look back over a part of what was said, or that differ from each other."""
    for kind in text.values.get("layer_types") or []:
        if kind != "full_attention":
            raise text.bad("layer_types", "full_attention for every layer", kind)
    window, context = text.values.get("sliding_window"), text.whole("max_position_embeddings")
    if window is not None and not (type(window) is int and window >= context):
        raise text.bad("sliding_window", f"null, or at least max_position_embeddings, {context}", window)


def _check_rotation(vision: Fields) -> None:
    """Refuse another rotary embedding of the tower than the one it was trained with."""
    older = bool(vision.values.get("rope_scaling"))
    name = "rope_scaling" if older else "rope_parameters"
    rope = vision.section(name) if vision.values.get(name) else Fields(vision.path, {}, vision.prefix)
    kind = rope.values.get("rope_type", rope.values.get("type", "default"))
    if kind not in ("default", "axial"):
        raise rope.bad("rope_type", "'axial'", kind)
    theta = rope.values.get("rope_theta", vision.values.get("rope_theta", _THETA))
    if theta != _THETA:
        raise rope.bad("rope_theta", f"{_THETA}", theta)


def _vision(vision: Fields) -> VisionConfig:
    vision.expect("hidden_act", "gelu_pytorch_tanh")
    _check_rotation(vision)
    for name, value in zip(_STRIDES, (CHANNELS, PATCH, TEMPORAL_PATCH, MERGE), strict=True):
        vision.expect(name, value, required=name != "in_channels")
    hidden, heads, depth = (vision.whole(name) for name in ("hidden_size", "num_heads", "depth"))
    # other names that transformers takes for the same numbers
    for name, value in (("num_attention_heads", heads), ("num_hidden_layers", depth)):
        vision.expect(name, value)
    vision.expect("head_dim", hidden // heads)
    if hidden % heads or (hidden // heads) % 4:
        # the 2-D rotary embedding turns pairs by row in one half of a head and by column in the other
        raise vision.bad(
            "num_heads", f"such that hidden_size, {hidden}, gives heads of a multiple of 4", heads
        )
    entries = vision.whole("num_position_embeddings")
    if math.isqrt(entries) ** 2 != entries:
        raise vision.bad("num_position_embeddings", "a square number", entries)
    deepstack = vision.wholes("deepstack_visual_indexes", least=0)
    if list(deepstack) != sorted(set(deepstack)) or (deepstack and deepstack[-1] >= depth):
        raise vision.bad("deepstack_visual_indexes", f"increasing and below depth, {depth}", deepstack)
    return VisionConfig(
        hidden=hidden,
        depth=depth,
        heads=heads,
        intermediate=vision.whole("intermediate_size"),
        out_hidden=vision.whole("out_hidden_size"),
        patch=PATCH,
        temporal_patch=TEMPORAL_PATCH,
        merge=MERGE,
        position_embeddings=entries,
        deepstack=deepstack,
    )


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
