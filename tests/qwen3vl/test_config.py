"""Reading a model's numbers, as both transformers 4.57 and 5 write them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError
from backends.qwen3vl.config import Config

SHAPES: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    # hidden, layers, heads, kv heads, head_dim, intermediate, vocab, context, theta, tie | hidden, depth, ...
    "2B": (
        (2048, 28, 16, 8, 128, 6144, 151936, 262144, 5_000_000, True),
        (1024, 24, 4096, 2304, [5, 11, 17]),
    ),
    "4B": (
        (2560, 36, 32, 8, 128, 9728, 151936, 262144, 5_000_000, True),
        (1024, 24, 4096, 2304, [5, 11, 17]),
    ),
    "8B": (
        (4096, 36, 32, 8, 128, 12288, 151936, 262144, 5_000_000, False),
        (1152, 27, 4304, 2304, [8, 16, 24]),
    ),
    "scenes": ((192, 4, 6, 2, 32, 352, 152064, 4096, 10_000, True), (96, 6, 256, 144, [1, 2, 4])),
}


def checkpoint(shape: str) -> dict[str, Any]:
    """config.json as released checkpoints carry it: rope_theta and rope_scaling in text_config."""
    text, vision = SHAPES[shape]
    section = [6, 5, 5] if text[4] == 32 else [24, 20, 20]
    names = "hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size"
    names += " vocab_size max_position_embeddings rope_theta tie_word_embeddings"
    return {
        "model_type": "qwen3_vl",
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "tie_word_embeddings": text[-1],
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "text_config": {
            **dict(zip(names.split(), text, strict=True)),
            "model_type": "qwen3_vl_text",
            "attention_bias": False,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": section, "rope_type": "default"},
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "hidden_size": vision[0],
            "depth": vision[1],
            "intermediate_size": vision[2],
            "num_position_embeddings": vision[3],
            "deepstack_visual_indexes": vision[4],
            "num_heads": 3 if vision[0] == 96 else 16,
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "out_hidden_size": text[0],
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def written(folder: Path, values: object) -> Path:
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_of_a_released_checkpoint_is_read(tmp_path: Path, shape: str) -> None:
    config = Config.read(written(tmp_path, checkpoint(shape)))
    (hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, context, theta, tie), vision = SHAPES[
        shape
    ]
    text = config.text
    assert (text.hidden, text.layers, text.heads, text.kv_heads) == (hidden, layers, heads, kv_heads)
    assert (text.head_dim, text.intermediate, text.vocab, text.context) == (
        head_dim,
        intermediate,
        vocab,
        context,
    )
    assert (text.rope_theta, text.rms_norm_eps, text.tie) == (theta, 1e-6, tie)
    assert 2 * sum(text.mrope_section) == head_dim
    tower = config.vision
    assert [tower.hidden, tower.depth, tower.intermediate, tower.position_embeddings] == list(vision[:4])
    assert (list(tower.deepstack), tower.out_hidden, tower.side**2) == (vision[4], hidden, vision[3])
    assert (tower.patch, tower.temporal_patch, tower.merge) == (16, 2, 2)
    tokens = (config.image_token, config.video_token, config.vision_start_token, config.vision_end_token)
    assert tokens == (151655, 151656, 151652, 151653)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_transformers_5_writes_again_reads_the_same(tmp_path: Path, shape: str) -> None:
    transformers = pytest.importorskip("transformers")
    before = Config.read(written(tmp_path, checkpoint(shape)))
    transformers.Qwen3VLConfig(**checkpoint(shape)).save_pretrained(tmp_path)
    newer = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert "rope_parameters" in newer["text_config"], "otherwise this compares a file with itself"
    assert "rope_theta" not in newer["text_config"]
    assert Config.read(tmp_path) == before


def test_two_models_do_not_read_the_same(tmp_path: Path) -> None:
    first = Config.read(written(tmp_path, checkpoint("2B")))
    assert Config.read(written(tmp_path, checkpoint("4B"))) != first


def test_tying_is_read_from_the_text_part_where_the_top_does_not_say(tmp_path: Path) -> None:
    values = checkpoint("8B")
    del values["tie_word_embeddings"]
    assert not Config.read(written(tmp_path, values)).text.tie
    values["text_config"]["tie_word_embeddings"] = True
    assert Config.read(written(tmp_path, values)).text.tie


BAD: list[tuple[str, object]] = [
    ("model_type", "qwen2_5_vl"),
    ("model_type", "qwen3_vl_moe"),
    ("model_type", None),
    ("quantization_config", {"quant_method": "fp8"}),
    ("auto_map", {"AutoModel": "x.Y"}),
    ("image_token_id", 152064),
    ("image_token_id", True),
    ("vision_end_token_id", -1),
    ("text_config", None),
    ("text_config", [1]),
    ("text_config.auto_map", {"AutoModel": "x.Y"}),
    ("text_config.hidden_size", None),
    ("text_config.hidden_size", "2048"),
    ("text_config.hidden_size", 2048.0),
    ("text_config.hidden_size", 0),
    ("text_config.num_key_value_heads", 5),
    ("text_config.hidden_act", "gelu"),
    ("text_config.attention_bias", True),
    ("text_config.max_position_embeddings", 10**12),
    ("text_config.rms_norm_eps", 0),
    ("text_config.rope_theta", float("inf")),
    ("text_config.rope_theta", float("nan")),
    ("text_config.rope_theta", None),
    ("text_config.rope_scaling", None),
    ("text_config.rope_scaling.rope_type", "yarn"),
    ("text_config.rope_scaling.mrope_interleaved", False),
    ("text_config.rope_scaling.mrope_section", [24, 20]),
    ("text_config.rope_scaling.mrope_section", [24, 24, 24]),
    ("vision_config", None),
    ("vision_config.patch_size", 14),
    ("vision_config.spatial_merge_size", None),
    ("vision_config.hidden_act", "silu"),
    ("vision_config.num_heads", 7),
    ("vision_config.num_position_embeddings", 2303),
    ("vision_config.out_hidden_size", 1024),
    ("vision_config.deepstack_visual_indexes", [5, 11, 24]),
    ("vision_config.deepstack_visual_indexes", [11, 5, 17]),
    ("vision_config.deepstack_visual_indexes", list(range(5)) * 2),
    ("vision_config.deepstack_visual_indexes", "5,11,17"),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_field_that_is_not_what_it_must_be_is_named(tmp_path: Path, field: str, value: object) -> None:
    values = copy.deepcopy(checkpoint("2B"))
    *sections, name = field.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    inner[name] = value
    if value is None:
        del inner[name]
    with pytest.raises(BackendError) as caught:
        Config.read(written(tmp_path, values))
    assert caught.value.code == "model_invalid"
    assert str(tmp_path / "config.json") in str(caught.value)
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff\xfe{}", b"[" * 100_000, b"9" * 5_000, b"{}" + b" " * (1 << 20)],
    ids=lambda content: repr(content[:4]),
)
def test_a_file_that_holds_no_small_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BackendError, match=r"config\.json") as caught:
        Config.read(tmp_path)
    assert caught.value.code == "model_invalid"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"config\.json cannot be read: No such file"):
        Config.read(tmp_path)
