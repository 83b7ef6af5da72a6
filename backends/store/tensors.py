"""Which tensors a checkpoint folder has, where they stand and what they are called: as transformers has it.

Safetensors: 8 bytes with the length of a JSON header, the header, the data. The file that config.json names
comes first, then ``model.safetensors``, then an index, which may be of an earlier save. A tensor is known by
its name in the whole model, whatever part of it was saved::

    language_model.norm.weight    the base model was saved          model.language_model.norm.weight
    model.lm_head.weight          a model around the model was      lm_head.weight

Folders of quantised weights are told apart by their kind and refused: only plain weights are read.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import BackendError
from backends.store.fields import Fields

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TABLE, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
MODEL = ("model.language_model.", "model.visual.", HEAD)  # how the names of a whole model's tensors begin
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own cap for its JSON header
STORED: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
# transformers 5 reads these names too, which some of its versions wrote
_DOUBLED = re.compile(r"^(model\.language_model\.model|language_model\.model\.model)(?=\.)")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor stands; one that is stored as no number format of STORED cannot be read."""

    file: Path
    name: str  # in the file
    stored: str
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    nbytes: int


def weight_files(folder: Path) -> list[Path]:
    """The files that are read; BackendError ``model_invalid`` names one that is missing."""
    first = _first(folder)
    index = first.suffix == ".json" and first.is_file()
    files = [folder / name for name in shards(first)] if index else [first]
    for file in files:
        if not file.is_file():
            raise BackendError(
                f"{file} is missing; only safetensors weights are loaded, download the checkpoint again",
                code="model_invalid",
            )
    return files


def config_values(folder: Path) -> Mapping[str, Any]:
    """What the folder's config.json says; nothing where there is none."""
    config = folder / "config.json"
    return Fields.read(config).values if config.is_file() else {}


def _first(folder: Path) -> Path:
    """The file with the weights, or the index of several; config.json may give it another name."""
    named = config_values(folder).get("transformers_weights")
    if named is None:
        single = (folder / SINGLE).is_file() or not (folder / INDEX).is_file()
        return folder / (SINGLE if single else INDEX)
    if not isinstance(named, str) or not re.fullmatch(r"\w[\w.-]*\.safetensors(\.index\.json)?", named):
        raise BackendError(
            f"{folder / 'config.json'}: transformers_weights must be a safetensors file of its folder, "
            f"got {named!r:.80}",
            code="model_invalid",
        )
    return folder / named


def shards(index: Path) -> list[str]:
    """The files that an index names; BackendError ``model_invalid`` where it is damaged."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged(index, "it names no files") from None
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise damaged(index, "it must name files of its own folder")
    return names


def stored_tensors(files: Iterable[Path]) -> list[StoredTensor]:
    """Every tensor of the files, by the headers; of those with one name the last file's, as transformers."""
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors.update({tensor.name: tensor for tensor in _header(file)})
    return list(tensors.values())


def full_name(name: str) -> str:
    """The name that a tensor has in the whole model; one that is no part of it stays as it is."""
    plain = _DOUBLED.sub("model.language_model", name)
    for other in (plain.removeprefix("model."), f"model.{plain}"):
        if other != plain and other.startswith(MODEL):
            return other
    return plain


def by_full_name(tensors: Iterable[StoredTensor]) -> tuple[dict[str, StoredTensor], list[StoredTensor]]:
    """The tensors under their full names, and those left out because another has the same one.

    transformers takes the first in the order of their names, part by part.
    """
    chosen: dict[str, StoredTensor] = {}
    left_out: list[StoredTensor] = []
    for tensor in tensors:
        name = full_name(tensor.name)
        if (other := chosen.get(name)) is None:
            chosen[name] = tensor
            continue
        chosen[name], left = sorted((other, tensor), key=lambda each: each.name.split("."))
        left_out.append(left)
    return chosen, left_out


def damaged(file: Path, problem: str) -> BackendError:
    """The error for a file that is not what it should be."""
    return BackendError(f"{file} is damaged ({problem}); download it again", code="model_invalid")


def _header(file: Path) -> list[StoredTensor]:
    """The tensors of one file."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_HEADER_LIMIT, size - 8):
                raise damaged(file, f"{size} bytes, without a whole header")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        whole = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if size != whole:
            raise damaged(file, f"{size} bytes, {whole} expected")
        return [_entry(file, name, entry, 8 + length, size) for name, entry in entries.items()]
    except OSError as error:
        raise BackendError(f"{file} cannot be read: {error.strerror}", code="model_invalid") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise damaged(file, "its header cannot be read") from None


def _entry(file: Path, name: str, entry: dict[str, Any], data: int, size: int) -> StoredTensor:
    stored, (first, end) = str(entry["dtype"]), entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    tensor = StoredTensor(file, name, stored, shape, data + int(first), int(end) - int(first))
    # how long others are does not matter: nobody reads them
    width = STORED[stored].itemsize if stored in STORED else None
    fits = width is None or tensor.nbytes == math.prod(shape) * width
    if min(shape, default=0) < 0 or not 0 <= first <= end or not fits or data + end > size:
        raise damaged(file, f"'{name}' does not fit its place")
    return tensor


_METHODS = {  # by quant_method in config.json
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fp8": "FP8",
    "gptq": "GPTQ",
}
_ENDINGS = {  # of tensors, where config.json does not say
    ".weight_packed": "compressed-tensors",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_scale_inv": "FP8",
    ".qweight": "GPTQ or AWQ",
    ".scales": "MLX",
}
_MLX_TOWER = "vision_tower."  # as MLX calls it, with the axes of its matrices in another order
_SIZES: dict[Any, str] = {
    (2048, 28): "2B",
    (2560, 36): "4B",
    (4096, 36): "8B",
    (5120, 64): "32B",
}  # hidden, layers
_BASE_MODEL = re.compile(r"^base_model:\s*(?:-\s*)?['\"]?([\w.-]+/[\w.-]+)", re.MULTILINE)
_CARD = 1 << 16  # bytes of a model card that are looked through


def check_plain(folder: Path) -> None:
    """BackendError ``model_invalid`` names a quantised folder's kind and what to use; no weight is read."""
    if any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors")):
        raise _refusal(folder, "GGUF")
    values = config_values(folder)
    text = values.get("text_config")
    for part in (values, text if isinstance(text, dict) else {}):
        if isinstance(part.get("quantization"), dict):
            raise _refusal(folder, "MLX")
        if isinstance(quantised := part.get("quantization_config"), dict):
            method = str(quantised.get("quant_method", ""))[:40]
            raise _refusal(folder, _METHODS.get(method, f"'{method}'" if method else "another tool"))


def check_plain_names(folder: Path, names: Iterable[str]) -> None:
    """As `check_plain`, by the full names of the tensors; what is no part of the model tells nothing."""
    for name in names:
        if name.startswith(_MLX_TOWER):
            raise _refusal(folder, "MLX")
        kind = next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
        if kind is not None and name.startswith(MODEL):
            raise _refusal(folder, kind)


def _refusal(folder: Path, kind: str) -> BackendError:
    return BackendError(
        f"{folder} has weights as {kind} writes them, and only plain bfloat16, float16 or float32 weights "
        f"are read; use the checkpoint that it was made from, {_original(folder)}",
        code="model_invalid",
    )


def _original(folder: Path) -> str:
    """What the model card names, else Qwen's own model of this size, else what to look for."""
    card = folder / "README.md"
    if card.is_file():
        with card.open("rb") as stream:
            if named := _BASE_MODEL.search(stream.read(_CARD).decode("utf-8", "replace")):
                return named[1]
    text: Any = config_values(folder).get("text_config")
    text = text if isinstance(text, dict) else {}
    size = _SIZES.get((text.get("hidden_size"), text.get("num_hidden_layers")))
    if size is None:
        return "such as Qwen/Qwen3-VL-2B-Instruct"
    return f"Qwen/Qwen3-VL-{size}-{'Thinking' if 'thinking' in str(folder).lower() else 'Instruct'}"
