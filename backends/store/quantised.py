"""Folders of quantised weights, told apart by their kind: only plain weights are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from backends.base import BackendError
from backends.store.fields import Fields
from backends.store.tensors import MODEL

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
    values = _config(folder)
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


def _config(folder: Path) -> Mapping[str, Any]:
    config = folder / "config.json"
    return Fields.read(config).values if config.is_file() else {}


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
    text: Any = _config(folder).get("text_config")
    text = text if isinstance(text, dict) else {}
    size = _SIZES.get((text.get("hidden_size"), text.get("num_hidden_layers")))
    if size is None:
        return "such as Qwen/Qwen3-VL-2B-Instruct"
    return f"Qwen/Qwen3-VL-{size}-{'Thinking' if 'thinking' in str(folder).lower() else 'Instruct'}"
