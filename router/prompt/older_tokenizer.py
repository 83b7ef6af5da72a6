"""A tokenizer as it was saved before tokenizer.json: from vocab.json and merges.txt, as transformers does it.

Source: Qwen2Tokenizer of transformers 5.23, which is Qwen3-VL's; the order of what is added decides its ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from backends.store import Fields

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_END = "<|endoftext|>"
_NAMED = {"bos_token": None, "eos_token": _END, "unk_token": _END, "sep_token": None, "pad_token": _END}
_NAMED |= {"cls_token": None, "mask_token": None}


def build_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder without tokenizer.json; any error of the library's where it is damaged."""
    settings = _settings(folder)
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.normalizer = normalizers.NFC()
    spaced = bool(settings.get("add_prefix_space"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False),
        ]
    )
    special = list(dict.fromkeys(_special(settings)))
    added = _added(folder, settings, special)
    known = {token.content for token in added}
    more = [AddedToken(text, special=True) for text in special if text not in known]
    tokenizer.add_tokens(added + more)
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special])
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    """The tokenizer's settings; before those had added tokens, special ones had a file of their own."""
    path, older = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    settings = dict(Fields.read(path).values) if path.is_file() else {}
    if "added_tokens_decoder" not in settings and older.is_file():
        settings |= Fields.read(older).values
    return settings


def _special(settings: Mapping[str, Any]) -> Iterator[str]:
    """The texts of all special tokens: named ones, and lists of others."""
    own = {name: value for name, value in settings.items() if name.endswith("_token")}
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    for token in [*(_NAMED | own).values(), *(more.values() if isinstance(more, dict) else more)]:
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            yield text


def _added(folder: Path, settings: Mapping[str, Any], special: list[str]) -> list[AddedToken]:
    """The tokens beside the vocabulary, by their ids."""
    decoder = settings.get("added_tokens_decoder")
    if decoder is not None:
        tokens = {int(number): AddedToken(**token) for number, token in decoder.items()}
        for token in tokens.values():
            token.special = token.special or token.content in special
    else:
        path = folder / "added_tokens.json"
        ids = Fields.read(path).values if path.is_file() else {}
        tokens = {
            number: AddedToken(text, normalized=text not in special, special=text in special)
            for text, number in ids.items()
        }
    return [token for _, token in sorted(tokens.items())]
