"""Small random Qwen3-VL checkpoints: every feature on, nothing tied, no weight left at its default."""

import shutil
from pathlib import Path

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

torch.set_num_threads(1)  # models this small spend more time on waking threads than on computing

SCENES = Path(__file__).parent.parent / "router" / "scenes"
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "generation_config.json",
)


def config(vocab: int = 1024) -> Qwen3VLConfig:
    return Qwen3VLConfig(
        text_config={
            "vocab_size": vocab,
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 96,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 4,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        image_token_id=1022,
        video_token_id=1023,
        vision_start_token_id=1019,
        vision_end_token_id=1020,
        tie_word_embeddings=False,
    )


def model(seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """Weights wide enough that greedy answers vary, biases and norms away from 0 and 1."""
    torch.manual_seed(seed)
    built = Qwen3VLForConditionalGeneration(config())
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.5 / weight.shape[-1] ** 0.5 if "embed" not in name else 1.0)
            elif "norm" in name and name.endswith("weight"):
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(0, 0.2)
    return built.eval()


def write(folder: Path, seed: int = 0) -> Path:
    """A checkpoint folder with the tokenizer and template of the embedded model."""
    model(seed).save_pretrained(folder)
    for name in COMPANIONS:
        shutil.copy(SCENES / name, folder)
    return folder
