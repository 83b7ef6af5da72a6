"""A checkpoint's tokenizer as a GGUF file holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf import GGUFWriter

# how Qwen3-VL's tokenizer cuts a text into words; our prompt builder makes the ids, so it is not used here
_SPLITS = "qwen2"
NORMAL, CONTROL, ADDED, UNUSED = 1, 3, 4, 5  # gguf.TokenType, ADDED being USER_DEFINED


def add_tokens(writer: GGUFWriter, folder: Path, vocab: int) -> None:
    """Write the tokens of ``folder``'s tokenizer, what kind each is, and how words are put together."""
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    said = json.loads((folder / "generation_config.json").read_bytes())
    names, kinds = tokens(tokenizer, vocab)
    ends = said["eos_token_id"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_SPLITS)
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges(tokenizer))
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    writer.add_add_bos_token(False)


def tokens(tokenizer: dict[str, Any], vocab: int) -> tuple[list[str], list[int]]:
    """The text of every id below ``vocab``, and its kind, from the contents of a tokenizer.json."""
    names = [f"[PAD{number}]" for number in range(vocab)]
    kinds = [UNUSED] * vocab
    for name, number in tokenizer["model"]["vocab"].items():
        names[number], kinds[number] = name, NORMAL
    for added in tokenizer["added_tokens"]:
        names[added["id"]], kinds[added["id"]] = added["content"], CONTROL if added["special"] else ADDED
    return names, kinds


def merges(tokenizer: dict[str, Any]) -> list[str]:
    """The pairs that become one token, in order; files hold them as pairs or with a space between."""
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
