"""A Qwen3-VL checkpoint as GGUF files: the language model in bfloat16, and the vision tower (mmproj).

Tensors have the names, types and order of dimensions that llama.cpp's own converter gives them. That one asks
for PyTorch, its source tree and a tokenizer it knows by heart; this needs the ``gguf`` package alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backends.qwen3vl import Config
from backends.store import Weights
from benchmarks.peers.gguf_names import gguf_name, is_vision
from benchmarks.peers.gguf_tokens import add_tokens

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

_PATCHES = "model.visual.patch_embed.proj.weight"
_PLACES = "model.visual.pos_embed.weight"


@dataclass(frozen=True)
class Stored:
    """A tensor of a GGUF file: the checkpoint's, or one frame's part of its patch embedding."""

    name: str
    source: str
    shape: tuple[int, ...]
    frame: int | None = None  # of the patch embedding

    def read(self, weights: Weights, rows: slice | None = None) -> NDArray[np.float32]:
        """Its values as the checkpoint has them, or those ``rows`` of its first axis."""
        values = weights.read(self.source, rows)
        return values if self.frame is None else np.ascontiguousarray(values[:, :, self.frame])


def stored(weights: Weights, config: Config, *, vision: bool) -> list[Stored]:
    """The tensors of one of the two files, in the order of the checkpoint."""
    found: list[Stored] = []
    for source in weights.names:
        if is_vision(source) != vision:
            continue
        name, shape = gguf_name(source, config.vision.deepstack), weights.shape(source)
        if source == _PATCHES:  # llama.cpp has a convolution for each of the two frames
            shape = (*shape[:2], *shape[3:])
            found += [Stored(name, source, shape, 0), Stored(f"{name}.1", source, shape, 1)]
        else:
            found.append(Stored(name, source, shape))
    return found


def write_text(file: Path, folder: Path) -> None:
    """The language model of the checkpoint in ``folder``: matrices in bfloat16, norms in float32."""
    import gguf

    config = Config.read(folder)
    text = config.text
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3VL])
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_block_count(text.layers)
    writer.add_context_length(text.context)
    writer.add_embedding_length(text.hidden)
    writer.add_feed_forward_length(text.intermediate)
    writer.add_head_count(text.heads)
    writer.add_head_count_kv(text.kv_heads)
    writer.add_key_length(text.head_dim)
    writer.add_value_length(text.head_dim)
    writer.add_rope_dimension_sections([*text.mrope_section, 0])
    writer.add_rope_freq_base(text.rope_theta)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_num_deepstack_layers(len(config.vision.deepstack))
    add_tokens(writer, folder, text.vocab)
    _write(writer, folder, config, vision=False, matrices=gguf.GGMLQuantizationType.BF16)


def write_vision(file: Path, folder: Path) -> None:
    """The vision tower: matrices in float16, the rest in float32."""
    import gguf

    config = Config.read(folder)
    vision = config.vision
    prepared = json.loads((folder / "preprocessor_config.json").read_bytes())
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.MMPROJ])
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.QWEN3VL)
    writer.add_vision_projection_dim(vision.out_hidden)
    writer.add_vision_image_size(vision.side * vision.patch)
    writer.add_vision_patch_size(vision.patch)
    writer.add_vision_spatial_merge_size(vision.merge)
    writer.add_vision_embedding_length(vision.hidden)
    writer.add_vision_feed_forward_length(vision.intermediate)
    writer.add_vision_block_count(vision.depth)
    writer.add_vision_head_count(vision.heads)
    writer.add_vision_attention_layernorm_eps(config.text.rms_norm_eps)
    writer.add_vision_image_mean(prepared["image_mean"])
    writer.add_vision_image_std(prepared["image_std"])
    writer.add_vision_use_gelu(True)
    writer.add_vision_is_deepstack_layers([block in vision.deepstack for block in range(vision.depth)])
    _write(writer, folder, config, vision=True, matrices=gguf.GGMLQuantizationType.F16)


def is_matrix(tensor: Stored) -> bool:
    """Whether a tensor is multiplied with, and so may be kept in few bits."""
    return len(tensor.shape) > 1 and tensor.source != _PLACES


def _write(
    writer: GGUFWriter, folder: Path, config: Config, *, vision: bool, matrices: GGMLQuantizationType
) -> None:
    """Write the header, then one tensor after the other: a model need not fit into memory."""
    import gguf

    weights = Weights(folder)
    tensors = stored(weights, config, vision=vision)
    kinds = [matrices if is_matrix(tensor) else gguf.GGMLQuantizationType.F32 for tensor in tensors]
    for tensor, kind in zip(tensors, kinds, strict=True):
        size = math.prod(tensor.shape) * (4 if kind == gguf.GGMLQuantizationType.F32 else 2)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, kind in zip(tensors, kinds, strict=True):
        writer.write_tensor_data(gguf.quantize(tensor.read(weights), kind))
    writer.close()
