"""The files of a model folder: where the template comes from, who ends an answer, and how damage is told."""

import json
import os

import pytest

from backends.base import BackendError
from router.prompt import PromptBuilder
from router.prompt.checkpoint import LARGEST_TOKENIZER
from router.types import Message
from tests.prompt.prompt_corpus import INSTRUCT, TEXT, VISION, ids_of, tokenizer, write_model

END, LAST, PAD = ids_of("<|im_end|>", "<|endoftext|>", "<|image_pad|>")
HELLO = (Message.of("user", "Hello"),)


def says(folder) -> str:
    return tokenizer().decode(PromptBuilder.read(folder).plan(HELLO).ids.tolist(), skip_special_tokens=False)


def refused(folder) -> str:
    with pytest.raises(BackendError) as caught:
        PromptBuilder.read(folder)
    assert caught.value.code == "model_invalid"
    return str(caught.value)


def theirs(folder) -> str | None:
    """The chat template of transformers' processor."""
    processor = pytest.importorskip("transformers").Qwen3VLProcessor
    return processor.get_processor_dict(str(folder))[0].get("chat_template")


def change(folder, name: str, **fields: object) -> None:
    values = json.loads((folder / name).read_text("utf-8"))
    (folder / name).write_text(json.dumps(values | fields), "utf-8")


def test_the_template_is_the_one_that_transformers_takes(tmp_path):
    write_model(tmp_path, "file", chat_template={"chat_template": "json"}, processor_config={})
    change(tmp_path, "tokenizer_config.json", chat_template="settings")
    change(tmp_path, "processor_config.json", chat_template="processor")
    for template, away in (("processor", "processor_config.json"), ("json", "chat_template.json")):
        assert says(tmp_path) == theirs(tmp_path) == template
        (tmp_path / away).unlink()
    assert says(tmp_path) == theirs(tmp_path) == "file"
    (tmp_path / "chat_template.jinja").unlink()
    assert theirs(tmp_path) is None, "of the processor; the tokenizer still has one"
    assert says(tmp_path) == "settings"
    change(tmp_path, "tokenizer_config.json", chat_template=[{"name": "default", "template": "named"}])
    assert says(tmp_path) == "named"
    change(tmp_path, "tokenizer_config.json", chat_template={"default": "by name"})
    assert says(tmp_path) == "by name"
    change(tmp_path, "tokenizer_config.json", chat_template=None)
    assert "has no chat template; copy chat_template.jinja" in refused(tmp_path)


def test_a_template_may_ask_for_the_end_token(tmp_path):
    write_model(tmp_path, "{{ messages[0].content }}{{ eos_token }}{{ bos_token }}")
    assert PromptBuilder.read(tmp_path).plan(HELLO).ids[-1] == END
    change(tmp_path, "tokenizer_config.json", eos_token={"content": "<|endoftext|>", "special": True})
    assert PromptBuilder.read(tmp_path).plan(HELLO).ids[-1] == LAST


@pytest.mark.parametrize(
    ("generation_config", "ends"),
    [
        ({"eos_token_id": [END, LAST]}, {END, LAST}),
        ({"eos_token_id": LAST}, {LAST}),
        ({"eos_token_id": None}, {END}),
        ({}, {END}),
        (None, {END}),
    ],
)
def test_the_end_tokens_are_the_models_own(tmp_path, generation_config, ends):
    builder = PromptBuilder.read(write_model(tmp_path, generation_config=generation_config))
    assert builder.eos == ends
    assert builder.generation_config == (generation_config or {})


@pytest.mark.parametrize("named", ["2", -1, 10**6, [END, 10**6], [True], 2.0, {}])
def test_an_end_token_that_is_no_id_is_refused(tmp_path, named):
    assert "eos_token_id" in refused(write_model(tmp_path, generation_config={"eos_token_id": named}))


def test_a_model_without_an_end_token_is_refused(tmp_path):
    config = json.loads((write_model(tmp_path) / "config.json").read_text("utf-8"))
    del config["text_config"]["eos_token_id"]
    assert "names no eos_token_id" in refused(write_model(tmp_path, config=config, generation_config={}))


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary", "another", "huge", "folder"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    path = write_model(tmp_path) / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "huge":
        path.touch()
        os.truncate(path, LARGEST_TOKENIZER + 1)  # a hole: takes no room on the disk
    elif damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(
            {"empty": b"", "cut": whole[: len(whole) // 2], "binary": b"\xff\xfe", "another": b"{}"}[damage]
        )
    assert name in refused(tmp_path)


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "chat_template.json", "generation_config.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{% if", b'{"chat_template": 7'])
def test_a_damaged_smaller_file_is_named(tmp_path, name, content):
    write_model(tmp_path, template=None if name == "chat_template.json" else INSTRUCT)
    (tmp_path / name).write_bytes(content)
    if name == "chat_template.jinja" and content.startswith(b'{"'):
        return  # a template that says just this
    assert name in refused(tmp_path)


def test_a_template_that_is_not_text_is_refused(tmp_path):
    assert "not text" in refused(write_model(tmp_path, None, chat_template={"chat_template": 7}))


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    vocab = tokenizer().get_vocab_size()
    write_model(tmp_path)
    change(tmp_path, "config.json", text_config={**TEXT, "vocab_size": vocab - 1})
    assert f"has ids up to {vocab - 1}, and the model {vocab - 1} ids" in refused(tmp_path)
    change(tmp_path, "config.json", text_config={**TEXT, "vocab_size": vocab}, image_token_id=5)
    assert "no special token 5" in refused(tmp_path)


def test_a_control_token_that_takes_in_spaces_is_refused(tmp_path):
    path = write_model(tmp_path) / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    values["added_tokens"][0]["rstrip"] = True
    path.write_text(json.dumps(values), "utf-8")
    assert "lstrip, rstrip or single_word" in refused(tmp_path)


def test_a_tokenizer_that_would_cut_is_told_not_to(tmp_path):
    path = write_model(tmp_path) / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    values["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    values["padding"] = {
        "strategy": {"Fixed": 99},
        "direction": "Right",
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    values["padding"]["pad_to_multiple_of"] = None
    path.write_text(json.dumps(values), "utf-8")
    assert says(tmp_path) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_the_numbers_of_the_model_come_along(tmp_path):
    builder = PromptBuilder.read(write_model(tmp_path))
    assert builder.config.vision.depth == VISION["depth"]
    assert (builder.config.image_token, builder.limits.max_pixels) == (PAD, 65536)
    assert builder.generation_config["temperature"] == 0.7
