"""Writes and reads a model folder that stock transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from benchmarks.scenes.model import CONFIG, build
from benchmarks.scenes.tokenizer import CONTROLS, control

TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type == 'image' or 'image' in part or 'image_url' in part %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif part.type == 'video' or 'video' in part %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- elif 'text' in part %}
                {{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
END, IM_END = control("<|endoftext|>"), control("<|im_end|>")
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "processor_class": "Qwen3VLProcessor",
    "size": {"shortest_edge": 9216, "longest_edge": 25600},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
GENERATION = {
    "bos_token_id": END,
    "pad_token_id": END,
    "eos_token_id": [IM_END, END],
    "do_sample": False,
    "max_new_tokens": 64,
}


def write(folder: Path, model: Any, tokenizer: Tokenizer) -> None:
    """Writes everything but sample pictures; weights as bfloat16, the tied head once."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    state.pop("lm_head.weight", None)
    halves = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(state.items())}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    for name, content in (
        ("config.json", CONFIG),
        ("preprocessor_config.json", PREPROCESSOR),
        ("generation_config.json", GENERATION),
        ("tokenizer_config.json", _tokenizer_config()),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def weights(folder: Path) -> Any:
    """The folder's model in float32, as the trainer builds it."""
    model = build()
    state = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    missing = set(model.load_state_dict(state, strict=False).missing_keys) - {"lm_head.weight"}
    if missing:
        raise ValueError(f"{folder} lacks {sorted(missing)[:3]}")
    model.tie_weights()
    return model


def _tokenizer_config() -> dict[str, Any]:
    added = {
        str(control(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in CONTROLS
    }
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "additional_special_tokens": list(CONTROLS[1:]),
        "added_tokens_decoder": added,
    }
