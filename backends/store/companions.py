"""The small files beside a model's weights, without which there is no answer: which they are, what lacks."""

from __future__ import annotations

from collections.abc import Collection

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
# a tokenizer as it was saved before tokenizer.json, and read only where that is not there
OLDER_TOKENIZER = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")


def companions(names: Collection[str]) -> tuple[str, ...]:
    """Those of a folder's or a repository's files that are read beside the weights."""
    wanted = COMPANIONS if "tokenizer.json" in names else COMPANIONS + OLDER_TOKENIZER
    return tuple(name for name in wanted if name in names)


def lacking(names: Collection[str]) -> str | None:
    """What no file of these names could give, and an answer needs; None where nothing is missing for sure."""
    needs = {
        "config.json": ({"config.json"},),
        "tokenizer.json": ({"tokenizer.json"}, {"vocab.json", "merges.txt"}),
        "image settings (preprocessor_config.json or processor_config.json)": (
            {"preprocessor_config.json"},
            {"processor_config.json"},
        ),
        "chat template (chat_template.jinja or chat_template.json)": (
            {"chat_template.jinja"},
            {"chat_template.json"},
            {"tokenizer_config.json"},
            {"processor_config.json"},
        ),
    }
    for what, ways in needs.items():
        if not any(way <= set(names) for way in ways):
            return what
    return None
