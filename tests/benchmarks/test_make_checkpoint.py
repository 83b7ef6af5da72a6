"""Random checkpoints: the real ones' names and shapes, readable by transformers and by us."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from backends.qwen3vl import Config
from backends.store import Weights, check_checkpoint
from router.prompt import PromptBuilder

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "make_checkpoint.py"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checkpoint", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_checkpoint"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("random") / "tiny"
    maker.write(folder, maker.SHAPES["tiny"])
    return folder


def test_transformers_loads_it_without_a_tensor_too_many_or_too_few(tiny: Path) -> None:
    model, report = Qwen3VLForConditionalGeneration.from_pretrained(tiny, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()


@pytest.mark.parametrize("size", ["tiny", "2b", "4b", "8b"])
def test_names_and_shapes_are_those_of_transformers(maker: ModuleType, tmp_path: Path, size: str) -> None:
    from transformers import AutoConfig

    maker.write_config(tmp_path, maker.SHAPES[size])
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(tmp_path))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if maker.SHAPES[size].tied:
        del wanted["lm_head.weight"]
    assert dict(maker.tensors(maker.SHAPES[size])) == wanted


def test_real_sizes_are_those_of_the_real_checkpoints(maker: ModuleType) -> None:
    billions = {
        size: sum(np.prod(sides) for _, sides in maker.tensors(shape)) / 1e9
        for size, shape in maker.SHAPES.items()
    }
    assert [round(float(billions[size]), 2) for size in ("2b", "4b", "8b")] == [2.13, 4.44, 8.77]


def test_our_own_readers_take_it(tiny: Path) -> None:
    check_checkpoint(tiny)
    config = Config.read(tiny)
    assert not config.text.tie
    builder = PromptBuilder.read(tiny)
    assert builder.eos == {1010, 1012}


def test_no_norm_and_no_bias_is_left_at_its_default(tiny: Path) -> None:
    weights = Weights(tiny)
    for name in weights.names:
        values = weights.read(name)
        assert values.std() > 0.02, name
        assert abs(values.mean() - (values.ndim == 1 and name.endswith("weight"))) < 0.1, name


def test_shards_hold_the_same_values_as_one_file(maker: ModuleType, tiny: Path, tmp_path: Path) -> None:
    maker.write_weights(tmp_path, maker.SHAPES["tiny"], 0, shard=200_000)
    maker.write_config(tmp_path, maker.SHAPES["tiny"])
    check_checkpoint(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_bytes())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(Weights(tiny).nbytes(name) for name in Weights(tiny).names)
    one, many = Weights(tiny), Weights(tmp_path)
    assert {*one.names} == {*many.names}
    assert all(np.array_equal(one.read(name), many.read(name)) for name in one.names)
    with safe_open(tiny / "model.safetensors", "np") as file:
        assert {*file.keys()} == {*one.names}


def test_a_seed_changes_every_tensor(maker: ModuleType) -> None:
    for name, sides in maker.tensors(maker.SHAPES["tiny"]):
        first, second = (np.concatenate([*maker.values(name, sides, seed)]) for seed in (0, 1))
        assert not np.array_equal(first, second)


def test_bfloat16_is_rounded_as_torch_rounds(maker: ModuleType) -> None:
    numbers = np.random.default_rng(0).standard_normal(10_000, np.float32)
    halves = np.array([1.00390625, 1.01171875, -1.00390625, 0.0], np.float32)  # between two bfloat16
    for values in (numbers, halves):
        wanted = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
        assert np.array_equal(maker.bfloat16(values), wanted)


def test_control_tokens_of_a_real_vocabulary_stand_where_the_config_says(maker, tmp_path: Path) -> None:
    maker.write_config(tmp_path, maker.SHAPES["2b"])
    maker.write_tokenizer(tmp_path, maker.SHAPES["2b"])
    config = Config.read(tmp_path)
    assert (config.image_token, config.vision_start_token, config.vision_end_token) == (
        151655,
        151652,
        151653,
    )
    builder = PromptBuilder.read(tmp_path)
    assert builder.eos == {151643, 151645}
    assert builder.tokenizer.token_to_id("<|image_pad|>") == config.image_token
    text = "Which colours do you see? x70000"
    ids = builder.tokenizer.encode(text, add_special_tokens=False).ids
    assert max(ids) < 1010
    assert builder.tokenizer.decode(ids) == text
    assert builder.tokenizer.decode([70000, 151642]) == " x70000 x151642"
    stock = AutoTokenizer.from_pretrained(tmp_path)
    assert stock.convert_tokens_to_ids("<|image_pad|>") == config.image_token
    assert (
        stock("Which colours do you see?")["input_ids"]
        == builder.tokenizer.encode("Which colours do you see?").ids
    )
