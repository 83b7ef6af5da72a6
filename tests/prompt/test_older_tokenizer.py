"""Folders with vocab.json and merges.txt in place of tokenizer.json: the same ids as transformers gives."""

import json
import random
from pathlib import Path

import pytest

from backends.base import BackendError
from router.prompt import PromptBuilder
from router.types import Message
from tests.prompt.prompt_corpus import INSTRUCT, PLAIN, SPECIAL, harmless, hostile, tokenizer, write_model

LAYOUTS = ("today", "legacy", "without a map", "without settings", "special by name", "in the vocabulary")


def write_older(folder: Path, layout: str = "today") -> Path:
    """The model of the corpus as slow tokenizers were saved, by savers of several years."""
    write_model(folder, INSTRUCT)
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").unlink()
    vocab = whole["model"]["vocab"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["model"]["merges"]]
    added = {token.pop("id"): token for token in whole["added_tokens"]}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "bos_token": None}
    settings |= {"pad_token": "<|endoftext|>", "additional_special_tokens": SPECIAL[1:]}
    if layout == "today":
        settings |= {"added_tokens_decoder": added}
    elif layout == "special by name":
        plain = {number: token | {"special": False} for number, token in added.items()}
        settings |= {"added_tokens_decoder": plain, "unk_token": None, "image_token": "<|image_pad|>"}
    elif layout == "in the vocabulary":
        vocab |= {token["content"]: number for number, token in added.items()}
        settings |= {"added_tokens_decoder": added}
    else:
        names = {token["content"]: number for number, token in added.items()}
        (folder / "added_tokens.json").write_text(json.dumps(names), "utf-8")
        if layout == "legacy":
            named = {"eos_token": {"content": "<|im_end|>", "lstrip": False, "rstrip": False}}
            several = {"additional_special_tokens": settings.pop("additional_special_tokens")}
            (folder / "special_tokens_map.json").write_text(json.dumps(named | several), "utf-8")
    if layout == "without settings":
        (folder / "tokenizer_config.json").unlink()
    else:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    return folder


def theirs(folder: Path):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_texts_and_control_tokens_have_the_ids_of_transformers(tmp_path: Path, layout: str) -> None:
    from router.prompt.checkpoint import control_ids, read_tokenizer

    folder = write_older(tmp_path / "model", layout)
    ours, reference, rng = read_tokenizer(folder, 10_000), theirs(folder), random.Random(0)
    special = {
        token.content: number for number, token in reference.added_tokens_decoder.items() if token.special
    }
    assert control_ids(folder, ours) == special
    texts = [harmless(rng) for _ in range(200)]
    assert [ours.encode(text).ids for text in texts] == reference(texts)["input_ids"]
    ours.encode_special_tokens = False  # as transformers reads a text
    texts = [hostile(rng) for _ in range(200)]
    assert [ours.encode(text).ids for text in texts] == reference(texts)["input_ids"]


@pytest.mark.parametrize("layout", ["today", "legacy", "special by name", "in the vocabulary"])
def test_a_conversation_has_the_ids_that_tokenizer_json_gives(tmp_path: Path, layout: str) -> None:
    newer = PromptBuilder.read(write_model(tmp_path / "newer", INSTRUCT))
    older = PromptBuilder.read(write_older(tmp_path / "older", layout))
    rng = random.Random(1)
    for _ in range(50):
        messages = (Message.of("system", harmless(rng)), Message.of("user", "Hi " + hostile(rng)))
        assert older.plan(messages).ids.tolist() == newer.plan(messages).ids.tolist()


def test_ids_of_another_order_of_merges_are_noticed(tmp_path: Path) -> None:
    folder = write_older(tmp_path / "model")
    first, *merges = (folder / "merges.txt").read_text("utf-8").splitlines()
    (folder / "merges.txt").write_text("\n".join([first, *merges[::-1]]) + "\n", "utf-8")
    from router.prompt.checkpoint import read_tokenizer

    texts = [harmless(random.Random(seed)) for seed in range(50)]
    ours = read_tokenizer(folder, 10_000)
    assert [ours.encode(text).ids for text in texts] != [tokenizer().encode(text).ids for text in texts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "{"),
        ("vocab.json", "[]"),
        ("merges.txt", "one two three\n"),
        ("merges.txt", "not there\n"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", json.dumps({"added_tokens_decoder": {"a": {}}})),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    folder = write_older(tmp_path / "model")
    (folder / name).write_text(content)
    with pytest.raises(BackendError) as caught:
        PromptBuilder.read(folder)
    assert caught.value.code == "model_invalid"
    assert str(folder) in str(caught.value)


def test_half_an_older_tokenizer_is_none(tmp_path: Path) -> None:
    folder = write_older(tmp_path / "model")
    (folder / "merges.txt").unlink()
    with pytest.raises(BackendError, match=r"tokenizer\.json cannot be read: No such file"):
        PromptBuilder.read(folder)


def test_words_of_the_model_are_no_control_tokens(tmp_path: Path) -> None:
    builder = PromptBuilder.read(write_older(tmp_path / "model"))
    assert set(builder.controls) == set(SPECIAL)
    assert not set(builder.controls) & set(PLAIN)
