"""Models of other kinds are refused before their weights are read: what each is, and what is nearest."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError
from backends.qwen3vl import Config
from router.models import find
from tests.qwen3vl.test_config import checkpoint

SHAPE: dict[str, Any] = {
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "intermediate_size": 11008,
    "vocab_size": 151936,
}
LARGE = {"hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 29568, "vocab_size": 152064}
EXPERTS = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
EXPERTS |= {"hidden_size": 2048, "num_hidden_layers": 48, "vocab_size": 151936, "intermediate_size": 6144}
MANY = EXPERTS | {"hidden_size": 4096, "num_hidden_layers": 94, "moe_intermediate_size": 1536}

OTHERS: list[tuple[dict[str, Any], str, str]] = [
    ({"model_type": "qwen2_vl", **SHAPE}, "is Qwen2-VL, an earlier family", "4B"),
    ({"model_type": "qwen2_5_vl", **SHAPE}, "is Qwen2.5-VL, an earlier family", "4B"),
    ({"model_type": "qwen2_5_vl", "text_config": LARGE}, "is Qwen2.5-VL", "32B"),
    ({"model_type": "qwen2", **SHAPE}, "is Qwen2 or Qwen2.5, which reads text and sees no images", "4B"),
    ({"model_type": "qwen3", **SHAPE, "hidden_size": 1024}, "is Qwen3, which reads text", "2B"),
    ({"model_type": "qwen3_moe", **EXPERTS}, "is Qwen3 as a mixture of experts", "8B"),
    ({"model_type": "qwen3_vl_moe", "text_config": EXPERTS}, "is Qwen3-VL as a mixture of experts", "8B"),
    ({"model_type": "qwen3_vl_moe", "text_config": MANY}, "is Qwen3-VL as a mixture of experts", "32B"),
    ({"model_type": "qwen3_5", "text_config": LARGE}, "is Qwen3.5, a later family", "32B"),
    ({"model_type": "qwen3_5_moe", "text_config": EXPERTS}, "is Qwen3.5 as a mixture of experts", "8B"),
    ({"model_type": "qwen3_omni_moe"}, "is Qwen3-Omni", "2B"),
    ({"model_type": "qwen3_next", **EXPERTS}, "is Qwen3-Next", "8B"),
    ({"model_type": "qwen2_5_omni"}, "is Qwen2.5-Omni", "2B"),
    ({"model_type": "qwen3_vl_text", **SHAPE}, "without its vision tower", "4B"),
    ({"model_type": "llama", **LARGE}, "is another family", "32B"),
    ({"model_type": "gemma3", "text_config": {"hidden_size": "?"}}, "is another family", "2B"),
    ({"model_type": "q\n" * 50}, "is another family", "2B"),
]


def written(folder: Path, values: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def refusal(folder: Path) -> str:
    """What is said of a folder that has no weights at all, by name and when its numbers are read."""
    with pytest.raises(BackendError) as named:
        find(str(folder))
    with pytest.raises(BackendError) as read:
        Config.read(folder)
    assert named.value.code == read.value.code == "model_invalid"
    assert str(named.value) == str(read.value)
    assert "\n" not in str(read.value)
    return str(read.value)


@pytest.mark.parametrize(("values", "what", "nearest"), OTHERS, ids=lambda value: str(value)[:50])
def test_another_kind_is_told_with_what_is_nearest(
    tmp_path: Path, values: dict[str, Any], what: str, nearest: str
) -> None:
    said = refusal(written(tmp_path / "model", values))
    assert f"{tmp_path / 'model' / 'config.json'}: model_type" in said
    assert what in said
    assert said.endswith(f"it is not served, the nearest that is: Qwen/Qwen3-VL-{nearest}-Instruct")


@pytest.mark.parametrize(("shape", "nearest"), [("2B", "2B"), ("4B", "4B"), ("8B", "8B")])
def test_a_release_is_nearest_to_itself(tmp_path: Path, shape: str, nearest: str) -> None:
    said = refusal(written(tmp_path / "model", checkpoint(shape) | {"model_type": "qwen2_5_vl"}))
    assert f"Qwen3-VL-{nearest}-Instruct" in said


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Qwen3VLForSequenceClassification", "is a reranker or classifier, which gives a score"),
        ("Qwen3VLForEmbedding", "is an embedding model, which gives vectors"),
        ("Qwen3VLForRewardModel", "is a reward model"),
    ],
)
def test_what_gives_no_text_is_refused_by_its_head(tmp_path: Path, name: str, what: str) -> None:
    said = refusal(written(tmp_path / "model", checkpoint("8B") | {"architectures": [name]}))
    assert what in said
    assert said.endswith("Qwen/Qwen3-VL-8B-Instruct")


@pytest.mark.parametrize("name", ["modules.json", "config_sentence_transformers.json"])
def test_an_embedding_model_is_told_by_its_files(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "model", checkpoint("2B"))
    Config.read(folder)
    (folder / name).write_text("{}")
    assert f"{folder} has {name}: it is an embedding model" in refusal(folder)


@pytest.mark.parametrize("names", [["Qwen3VLForConditionalGeneration"], ["Qwen3VLModel"], [], None, "x"])
def test_a_qwen3_vl_that_writes_text_is_read(tmp_path: Path, names: object) -> None:
    assert Config.read(written(tmp_path / "model", checkpoint("2B") | {"architectures": names}))
