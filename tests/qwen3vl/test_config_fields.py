"""Every field of transformers' configuration classes: read, refused by name, or shown to change nothing."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError
from backends.qwen3vl import Config
from tests.qwen3vl.test_config import checkpoint

# another value of each field that answers depend on; it is read or refused
ACTED_ON: dict[str, dict[str, object]] = {
    "": {
        "is_encoder_decoder": True,
        "text_config": {},
        "vision_config": {},
        "image_token_id": 7,
        "video_token_id": 7,
        "vision_start_token_id": 7,
        "vision_end_token_id": 7,
        "tie_word_embeddings": False,
        "per_layer_config": {"0": {"head_dim": 64}},
    },
    "text_config": {
        "is_encoder_decoder": True,
        "vocab_size": 160_000,
        "hidden_size": 1024,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "hidden_act": "gelu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "yarn", "factor": 4.0},
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
        "rope_theta": 10_000.0,
        "attention_bias": True,
        "sliding_window": 4096,
        "layer_types": ["sliding_attention"] * 28,
        "per_layer_config": {"0": {"head_dim": 64}},
    },
    "vision_config": {
        "is_encoder_decoder": True,
        "depth": 30,
        "hidden_size": 512,
        "hidden_act": "silu",
        "intermediate_size": 64,
        "num_heads": 8,
        "num_attention_heads": 8,
        "num_hidden_layers": 30,
        "head_dim": 32,
        "in_channels": 1,
        "patch_size": 14,
        "spatial_merge_size": 1,
        "temporal_patch_size": 1,
        "out_hidden_size": 1024,
        "num_position_embeddings": 4096,
        "deepstack_visual_indexes": [1, 2, 3],
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "axial"},
        "rope_scaling": {"rope_type": "yarn"},
        "rope_theta": 500.0,
        "per_layer_config": {"0": {"num_heads": 8}},
    },
}
# what training, printing or the caller decides, and no answer depends on
WITHOUT_EFFECT: dict[str, object] = {
    "transformers_version": "4.57.0",
    "output_hidden_states": True,
    "return_dict": True,
    "chunk_size_feed_forward": 3,
    "id2label": {"0": "a"},
    "label2id": {"a": 0},
    "problem_type": "regression",
    "initializer_range": 0.5,
    "use_cache": False,
    "attention_dropout": 0.5,
    "pad_token_id": 3,
}
ELSEWHERE = {"architectures": "test_kinds.py", "dtype": "the format of the weights is the runtime's"}


def classes() -> dict[str, Any]:
    pytest.importorskip("transformers")
    from transformers.models.qwen3_vl import configuration_qwen3_vl as module

    return {
        "": module.Qwen3VLConfig,
        "text_config": module.Qwen3VLTextConfig,
        "vision_config": module.Qwen3VLVisionConfig,
    }


def test_every_field_of_transformers_is_known_here() -> None:
    for section, its_class in classes().items():
        fields = {field.name for field in dataclasses.fields(its_class)}
        assert fields - ACTED_ON[section].keys() - WITHOUT_EFFECT.keys() - ELSEWHERE.keys() == set()


def changed(folder: Path, section: str, **changes: object) -> Path:
    values = copy.deepcopy(checkpoint("2B"))
    inner = values[section] if section else values
    inner.update(changes)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def outcome(folder: Path) -> Config | str:
    """What the folder reads as, or why it is refused."""
    try:
        return Config.read(folder)
    except BackendError as error:
        return str(error)


CASES = [(section, name) for section, fields in ACTED_ON.items() for name in fields]


@pytest.mark.parametrize(("section", "name"), CASES)
def test_what_answers_depend_on_is_read_or_refused_by_name(tmp_path: Path, section: str, name: str) -> None:
    value = ACTED_ON[section][name]
    before = outcome(changed(tmp_path, section))
    # of two names for one thing transformers goes by the older
    older = {"rope_scaling": None} if name == "rope_parameters" else {}
    after = outcome(changed(tmp_path, section, **older, **{name: value}))
    assert isinstance(before, Config)
    assert after != before
    if isinstance(after, str):
        assert str(tmp_path / "config.json") in after
        inside = value if isinstance(value, dict) else {}
        assert any(word in after for word in (name, *inside, "mrope", "hidden_size", "num_heads"))


def test_what_is_passed_over_changes_no_score_of_transformers() -> None:
    import torch

    from tests import tiny

    model = tiny.model()
    ids = torch.arange(40)[None] % 900
    with torch.no_grad():
        before = model(input_ids=ids).logits
    for section in (model.config, model.config.text_config, model.config.vision_config):
        for name, value in WITHOUT_EFFECT.items():
            setattr(section, name, value)
    again = type(model)(model.config).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, before)
        again.config.text_config.rms_norm_eps = 0.1
        other = type(model)(again.config).eval()
        other.load_state_dict(model.state_dict())
        assert not torch.equal(other(input_ids=ids).logits, before), "a field that is acted on is noticed"


@pytest.mark.parametrize(
    "rope",
    [None, {}, {"rope_type": "axial", "rope_theta": 10000.0}, {"rope_type": "default"}, {"rope_theta": 1e4}],
)
def test_the_towers_own_rotation_is_read_as_transformers_writes_it(tmp_path: Path, rope: object) -> None:
    before = Config.read(changed(tmp_path, "vision_config"))
    assert Config.read(changed(tmp_path, "vision_config", rope_parameters=rope)) == before


@pytest.mark.parametrize(
    ("rope", "word"),
    [
        ({"rope_type": "yarn"}, "vision_config.rope_parameters.rope_type must be 'axial'"),
        ({"rope_theta": 500}, "vision_config.rope_parameters.rope_theta must be 10000"),
        ({"rope_theta": None}, "vision_config.rope_parameters.rope_theta must be 10000"),
        ("axial", "vision_config.rope_parameters must be an object"),
    ],
)
def test_another_rotation_of_the_tower_is_refused(tmp_path: Path, rope: object, word: str) -> None:
    with pytest.raises(BackendError, match=word):
        Config.read(changed(tmp_path, "vision_config", rope_parameters=rope))


def test_a_window_that_holds_the_whole_context_is_none(tmp_path: Path) -> None:
    before = Config.read(changed(tmp_path, "text_config"))
    for fields in ({"sliding_window": None}, {"sliding_window": 262_144}, {"layer_types": None}):
        assert Config.read(changed(tmp_path, "text_config", **fields)) == before
    with pytest.raises(BackendError, match="sliding_window must be null, or at least"):
        Config.read(changed(tmp_path, "text_config", sliding_window=262_143))


def test_of_two_sets_of_rope_parameters_the_one_that_transformers_takes_is_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    parameters = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    folder = changed(tmp_path, "text_config", rope_parameters=parameters | {"rope_theta": 77.0})
    values = json.loads((folder / "config.json").read_text())
    theirs = transformers.Qwen3VLConfig(**values).text_config.rope_parameters["rope_theta"]
    assert Config.read(folder).text.rope_theta == theirs == 5_000_000
