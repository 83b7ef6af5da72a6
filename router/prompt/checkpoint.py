"""The text files of a model folder: tokenizer, chat template, and how the model wants to be sampled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from backends.base import BackendError
from backends.store import Fields
from router.prompt.older_tokenizer import build_tokenizer
from router.prompt.template import ChatTemplate

OLDER = "vocab.json"
LARGEST_TOKENIZER = 64 << 20  # bytes; Qwen's is 11 MB
LARGEST_TEMPLATE = 1 << 20

# The names by which a chat template may ask for a control token.
_VARIABLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Of the processor, and then of the tokenizer.
_TEMPLATES = ("processor_config.json", "chat_template.json", "chat_template.jinja", "tokenizer_config.json")


def read_tokenizer(folder: Path, vocab: int) -> Tokenizer:
    """The tokenizer, set to read special tokens in a text as the text they are.

    BackendError ``model_invalid``: missing, damaged, or with ids that the model, of ``vocab`` ids, has not.
    """
    path = tokenizer_file(folder)
    source = _read(path, LARGEST_TOKENIZER)
    if path.name == OLDER:
        _read(folder / "merges.txt", LARGEST_TOKENIZER)
    try:
        tokenizer = build_tokenizer(folder) if path.name == OLDER else Tokenizer.from_str(source)
    except BackendError:
        raise
    except Exception:  # the library raises nothing more special than this
        raise _invalid(path, "is not a tokenizer; copy it again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < vocab:
        raise _invalid(
            path, f"has ids up to {largest}, and the model {vocab} ids; they do not belong together"
        )
    return tokenizer


def tokenizer_file(folder: Path) -> Path:
    """The file that has the tokenizer's vocabulary: tokenizer.json, or that of a tokenizer from before it."""
    older = not (folder / "tokenizer.json").exists() and all(
        (folder / name).is_file() for name in (OLDER, "merges.txt")
    )
    return folder / (OLDER if older else "tokenizer.json")


def control_ids(folder: Path, tokenizer: Tokenizer) -> dict[str, int]:
    """Every special token's text and id: what may come from a chat template and never from a text.

    BackendError ``model_invalid``: one of them takes in the spaces or depends on the words around it.
    """
    added: Mapping[int, AddedToken] = tokenizer.get_added_tokens_decoder()
    special = {number: token for number, token in added.items() if token.special}
    for token in special.values():
        if token.lstrip or token.rstrip or token.single_word or not token.content:
            problem = f"has a special token {token.content!r} with lstrip, rstrip or single_word"
            raise _invalid(tokenizer_file(folder), f"{problem}; only plain ones are supported")
    return {token.content: number for number, token in special.items()}


def read_template(folder: Path, controls: Mapping[str, int]) -> ChatTemplate:
    """The chat template: the first of the places where transformers looks for one, in its order.

    BackendError ``model_invalid``: there is none, or it cannot be used.
    """
    settings = folder / "tokenizer_config.json"
    fields = Fields.read(settings).values if settings.is_file() else {}
    variables = {name: text for name in _VARIABLES if (text := _text(fields.get(name))) is not None}
    for name in _TEMPLATES:
        path = folder / name
        if not path.is_file():
            continue
        source = _source(path)
        if source is not None:
            return ChatTemplate(source, controls, variables, str(path))
    raise _invalid(
        folder, "has no chat template; copy chat_template.jinja or chat_template.json from the checkpoint"
    )


def read_generation_config(folder: Path) -> Mapping[str, Any]:
    """The model's own sampling defaults; empty when it has none."""
    path = folder / "generation_config.json"
    return Fields.read(path).values if path.is_file() else {}


def read_end_tokens(folder: Path, generation_config: Mapping[str, Any], vocab: int) -> frozenset[int]:
    """The ids that end an answer, as the sampling defaults name them, else the model's configuration.

    BackendError ``model_invalid``: none is named, or one is not an id.
    """
    config = Fields.read(folder / "config.json").values
    text = config.get("text_config")
    for values in (generation_config, config, text if isinstance(text, dict) else {}):
        value = values.get("eos_token_id")
        ends = value if isinstance(value, list) else [value]
        if value is None or not ends:
            continue
        if any(type(end) is not int or not 0 <= end < vocab for end in ends):
            raise _invalid(
                folder, f"names eos_token_id {value!r:.80}, which must be ids from 0 to {vocab - 1}"
            )
        return frozenset(ends)
    raise _invalid(folder, "names no eos_token_id in generation_config.json or config.json")


def _source(path: Path) -> str | None:
    if path.suffix == ".jinja":
        return _read(path, LARGEST_TEMPLATE)
    source = Fields.read(path).values.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
    if isinstance(source, dict):
        source = source.get("default")
    if source is not None and not isinstance(source, str):
        raise _invalid(path, "has a chat_template that is not text; copy it again")
    return source


def _text(token: Any) -> str | None:
    """The text of a token that a configuration gives as text or as an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _read(path: Path, largest: int) -> str:
    try:
        if path.stat().st_size > largest:
            raise _invalid(path, f"is larger than {largest} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}; copy it from the checkpoint") from None
    except UnicodeDecodeError:
        raise _invalid(path, "is not UTF-8 text; copy it again") from None


def _invalid(path: Path, problem: str) -> BackendError:
    return BackendError(f"{path} {problem}", code="model_invalid")
