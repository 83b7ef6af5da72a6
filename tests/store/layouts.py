"""Checkpoint folders as savers leave them: a small random model in many files, names and number formats."""

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from tests import tiny

Tensors = dict[str, torch.Tensor]

TABLE, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


class Layout(NamedTuple):
    """How a folder was saved; the first of each is what transformers saves today."""

    files: str = "single"
    tie: str = "untied"
    names: str = "whole"
    stored: str = "F32"
    extra: str = "nothing"


# the flag at the top, the flag in text_config (None: not said), and which of table and head are saved
TIES: dict[str, tuple[bool | None, bool | None, str]] = {
    "untied": (False, False, "both"),
    "tied": (True, True, "table"),
    "tied, the head saved": (True, True, "head"),
    "tied, the same head": (True, True, "twice"),
    "tied, a head of its own": (True, True, "both"),
    "tied at the top alone": (True, None, "table"),
    "tied at the top alone, a head of its own": (True, None, "both"),
    "tied in the text part alone, both saved": (None, True, "both"),
    "tied in the text part alone": (None, True, "table"),
    "tied against the top": (False, True, "table"),
    "untied, no head": (False, False, "table"),
    "untied, no table": (False, False, "head"),
}
NAMES = ("whole", "base", "wrapped", "doubled", "both", "of another family")
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
FILES = (
    "single",
    "shards",
    "old shards beside",
    "old index beside",
    "shards with more than the index says",
    "named in config.json",
)
EXTRAS = (
    "nothing",
    "buffers",
    "other numbers",
    "more layers",
    "a bias",
    "other norm",
    "a short one",
    "NaN",
)


@cache
def original() -> Mapping[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tiny.model().state_dict().items()}


def moved(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The same tensors with other values."""
    return {name: tensor * 0.5 + 0.25 for name, tensor in tensors.items()}


def write(folder: Path, layout: Layout) -> Path:
    """The folder, with all that a prompt needs."""
    folder.mkdir(parents=True)
    for name in tiny.COMPANIONS:
        shutil.copy(tiny.SCENES / name, folder)
    config = tiny.config()
    config.architectures = ["Qwen3VLForConditionalGeneration"]
    values = json.loads(config.to_json_string(use_diff=False))
    top, text, saved = TIES[layout.tie]
    for part, flag in ((values, top), (values["text_config"], text)):
        part.pop("tie_word_embeddings", None)
        part.update({} if flag is None else {"tie_word_embeddings": flag})
    (folder / "config.json").write_text(json.dumps(values))
    tensors = _stored(_saved(saved), layout.stored)
    tensors = _with_extra(_named(tensors, layout.names), layout.extra)
    _FILES[layout.files](folder, tensors)
    return folder


def _saved(which: str) -> Tensors:
    tensors = dict(original())
    if which == "twice":
        tensors[HEAD] = tensors[TABLE].clone()
    elif which != "both":
        del tensors[HEAD if which == "table" else TABLE]
    return tensors


def _stored(tensors: Tensors, stored: str) -> Tensors:
    kinds = list(STORED.values()) if stored == "mixed" else [STORED[stored]]
    return {name: tensors[name].to(kinds[at % len(kinds)]) for at, name in enumerate(sorted(tensors))}


def _named(tensors: Tensors, names: str) -> Tensors:
    if names == "base":
        return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if names == "wrapped":
        return {f"model.{name}": tensor for name, tensor in tensors.items()}
    if names == "doubled":
        inner = "model.language_model."
        return {name.replace(inner, f"{inner}model."): tensor for name, tensor in tensors.items()}
    if names == "of another family":
        return {name.replace("language_model.", ""): tensor for name, tensor in tensors.items()}
    if names == "both":
        other = {name.removeprefix("model."): tensor for name, tensor in moved(tensors).items()}
        return {**other, **tensors}
    return tensors


def _with_extra(tensors: Tensors, extra: str) -> Tensors:
    number = torch.zeros(3)
    more: dict[str, Tensors] = {
        "nothing": {},
        "buffers": {
            "model.language_model.rotary_emb.inv_freq": number.clone(),
            "model.visual.position_ids": torch.zeros(3, dtype=torch.int64),
        },
        "other numbers": {
            "mtp.codes": torch.zeros(5, dtype=torch.int8),
            "mtp.small": torch.zeros(5, dtype=torch.float8_e4m3fn),
            "mtp.flags": torch.zeros(5, dtype=torch.bool),
        },
        "more layers": {"model.language_model.layers.4.mlp.up_proj.weight": torch.ones(96, 64)},
        "a bias": {"lm_head.bias": torch.ones(1024)},
        "other norm": {"language_model.final_norm.weight": torch.ones(64)},
        "NaN": {"mtp.broken": torch.full((3,), torch.nan)},
        "a short one": {},
    }
    tensors = {**tensors, **more[extra]}
    if extra == "a short one":
        short = [name for name in tensors if name.endswith("merger.norm.bias")]
        tensors.update({name: tensors[name][:-1].clone() for name in short})
    return tensors


def _single(folder: Path, tensors: Tensors, name: str = "model.safetensors") -> None:
    save_file(tensors, folder / name, metadata={"format": "pt"})


def _shards(folder: Path, tensors: Tensors, *, listed: int = 3) -> None:
    """Three files, and an index that names the tensors of each, or of the last only one."""
    names, index = sorted(tensors), {}
    for at in range(3):
        file, part = f"model-{at + 1:05}-of-00003.safetensors", names[at::3]
        _single(folder, {name: tensors[name] for name in part}, file)
        index.update(dict.fromkeys(part if at < listed else part[:1], file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _old_shards(folder: Path, tensors: Tensors) -> None:
    kinds = {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
    _shards(folder, moved(kinds))
    _single(folder, tensors)


def _named_in_config(folder: Path, tensors: Tensors) -> None:
    _single(folder, tensors, "elsewhere.safetensors")
    _single(folder, moved({name: tensor.to(torch.float32) for name, tensor in tensors.items()}))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**values, "transformers_weights": "elsewhere.safetensors"})
    )


def _old_index(folder: Path, tensors: Tensors) -> None:
    _old_shards(folder, tensors)
    for file in folder.glob("model-*.safetensors"):
        file.unlink()


_FILES = {
    "single": _single,
    "shards": _shards,
    "old shards beside": _old_shards,
    "old index beside": _old_index,
    "named in config.json": _named_in_config,
    "shards with more than the index says": lambda *given: _shards(*given, listed=2),
}
