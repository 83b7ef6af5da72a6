"""Quantised folders are told by their kind, with the checkpoint to use, before a weight is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError
from backends.store import Weights, check_checkpoint
from router.models import find

safetensors = pytest.importorskip("safetensors.numpy")
np = pytest.importorskip("numpy")

SHAPE = {"hidden_size": 4096, "num_hidden_layers": 36}
PLAIN = {"model_type": "qwen3_vl", "text_config": SHAPE}
LAYER = "model.language_model.layers.0.mlp.up_proj"

CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
    ("AWQ", {"quantization_config": {"quant_method": "awq", "bits": 4}}),
    ("GPTQ", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    ("compressed-tensors", {"quantization_config": {"quant_method": "compressed-tensors"}}),
    ("FP8", {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}),
    ("'auto-round'", {"quantization_config": {"quant_method": "auto-round"}}),
    ("another tool", {"quantization_config": {"bits": 4}}),
    ("AWQ", {"text_config": {**SHAPE, "quantization_config": {"quant_method": "awq"}}}),
    (
        "MLX",
        {"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}},
    ),
]

NAMES: list[tuple[str, str]] = [
    ("bitsandbytes", f"{LAYER}.weight.absmax"),
    ("bitsandbytes", f"{LAYER}.SCB"),
    ("GPTQ or AWQ", f"{LAYER}.qweight"),
    ("compressed-tensors", f"{LAYER}.weight_packed"),
    ("FP8", f"{LAYER}.weight_scale_inv"),
    ("MLX", "language_model.model.layers.0.mlp.up_proj.scales"),
    ("MLX", "vision_tower.patch_embed.proj.weight"),
]


def config(folder: Path, values: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def refusal(folder: Path) -> str:
    sentences = set()
    for check in (check_checkpoint, Weights, lambda folder: find(str(folder))):
        with pytest.raises(BackendError) as caught:
            check(folder)
        assert caught.value.code == "model_invalid"
        sentences.add(str(caught.value))
    assert len(sentences) == 1
    return sentences.pop()


@pytest.mark.parametrize(("kind", "values"), CONFIGS)
def test_a_quantised_folder_is_told_by_its_configuration(
    tmp_path: Path, kind: str, values: dict[str, Any]
) -> None:
    folder = config(tmp_path / "m", {**PLAIN, **values})  # no weights there: none are looked at
    said = refusal(folder)
    assert f"weights as {kind} writes them" in said
    assert said.endswith("use the checkpoint that it was made from, Qwen/Qwen3-VL-8B-Instruct")


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_quantised_folder_is_told_by_its_tensors(tmp_path: Path, kind: str, name: str) -> None:
    folder = config(tmp_path / "m", PLAIN)
    safetensors.save_file({name: np.zeros(4, np.uint8)}, folder / "model.safetensors")
    assert f"weights as {kind} writes them" in refusal(folder)


def test_what_is_no_part_of_the_model_tells_nothing(tmp_path: Path) -> None:
    folder = config(tmp_path / "m", PLAIN)
    tensors = {"mtp.qweight": np.zeros(4, np.uint8), f"{LAYER}.weight": np.zeros((2, 2), np.float32)}
    safetensors.save_file(tensors, folder / "model.safetensors")
    assert Weights(folder).shape(f"{LAYER}.weight") == (2, 2)


def test_a_gguf_is_told_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "weights as GGUF writes them" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("card", "name", "original"),
    [
        ("base_model: Qwen/Qwen3-VL-4B-Thinking", "m", "Qwen/Qwen3-VL-4B-Thinking"),
        ('base_model:\n- "someone/fine-tuned"\n', "m", "someone/fine-tuned"),
        (None, "Qwen3-VL-8B-Thinking-AWQ", "Qwen/Qwen3-VL-8B-Thinking"),
        ("no front matter", "m", "Qwen/Qwen3-VL-8B-Instruct"),
    ],
)
def test_the_original_is_named(tmp_path: Path, card: str | None, name: str, original: str) -> None:
    folder = config(tmp_path / name, {**PLAIN, **CONFIGS[1][1]})
    if card is not None:
        (folder / "README.md").write_text(f"---\n{card}\n---\n# A model\n")
    assert refusal(folder).endswith(f"made from, {original}")


def test_a_size_that_is_not_known_still_leads_on(tmp_path: Path) -> None:
    folder = config(tmp_path / "m", {**CONFIGS[0][1], "text_config": {"hidden_size": 3}})
    assert refusal(folder).endswith("made from, such as Qwen/Qwen3-VL-2B-Instruct")
