"""Models that are not served: what each kind is, and which Qwen3-VL is nearest to it in size."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from backends.base import BackendError
from backends.store import Fields

SERVED = "qwen3_vl"
# files of sentence-transformers, which models have that give vectors in place of text
EMBEDDING_FILES = ("modules.json", "config_sentence_transformers.json")

_TEXT = "reads text and sees no images"
_KINDS = {
    "qwen2_vl": "Qwen2-VL, an earlier family with another vision tower",
    "qwen2_5_vl": "Qwen2.5-VL, an earlier family with another vision tower",
    "qwen2_5_vl_text": "the language model alone of Qwen2.5-VL, an earlier family",
    "qwen2": f"Qwen2 or Qwen2.5, which {_TEXT}",
    "qwen2_moe": f"Qwen2 as a mixture of experts, which {_TEXT}",
    "qwen2_audio": "Qwen2-Audio, which hears and sees no images",
    "qwen2_5_omni": "Qwen2.5-Omni, which hears and speaks too, an earlier family",
    "qwen3": f"Qwen3, which {_TEXT}",
    "qwen3_moe": f"Qwen3 as a mixture of experts, which {_TEXT}",
    "qwen3_next": f"Qwen3-Next, which {_TEXT}",
    "qwen3_asr": "Qwen3-ASR, which writes down speech",
    "qwen3_omni_moe": "Qwen3-Omni, which hears and speaks too, as a mixture of experts",
    "qwen3_vl_text": "the language model alone of a Qwen3-VL, without its vision tower",
    "qwen3_vl_moe": "Qwen3-VL as a mixture of experts",
    "qwen3_5": "Qwen3.5, a later family with other layers",
    "qwen3_5_text": "the language model alone of Qwen3.5, a later family",
    "qwen3_5_moe": "Qwen3.5 as a mixture of experts, a later family with other layers",
}
_RELEASES = {"2B": 1.7e9, "4B": 4.0e9, "8B": 8.2e9, "32B": 32.8e9}  # numbers in the language model
_HEADS = {
    "SequenceClassification": "a reranker or classifier, which gives a score",
    "Embedding": "an embedding model, which gives vectors",
    "TokenClassification": "a classifier of tokens",
    "RewardModel": "a reward model, which gives a score",
}


def check_kind(fields: Fields) -> None:
    """Refuse a config.json of anything but a Qwen3-VL that writes text: what it is, and what is nearest.

    BackendError ``model_invalid``.
    """
    kind = fields.values.get("model_type")
    if isinstance(kind, str) and kind != SERVED:
        what = _KINDS.get(kind, "another family")
        raise _refusal(f"{fields.path}: model_type {kind!r:.80} is {what}", fields.values)
    names = fields.values.get("architectures")
    for name in names if isinstance(names, list) else []:
        if head := next((what for ending, what in _HEADS.items() if ending in str(name)), None):
            raise _refusal(f"{fields.path}: architectures {str(name)!r:.80} is {head}", fields.values)
    check_files(str(fields.path.parent), [file.name for file in _files(fields.path.parent)], fields.values)


def check_files(origin: str, names: Collection[str], values: Mapping[str, Any] | None = None) -> None:
    """Refuse a folder or repository, called ``origin``, whose file names are those of an embedding model."""
    for name in EMBEDDING_FILES:
        if name in names:
            raise _refusal(
                f"{origin} has {name}: it is an embedding model, which gives vectors", values or {}
            )


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in EMBEDDING_FILES if (folder / name).is_file()]


def _refusal(what: str, values: Mapping[str, Any]) -> BackendError:
    return BackendError(
        f"{what}; it is not served, the nearest that is: {_nearest(values)}", code="model_invalid"
    )


def _nearest(values: Mapping[str, Any]) -> str:
    """The hub id of the release whose language model is nearest in size; the smallest where nothing tells."""
    text = next((values[name] for name in _TEXT_SECTIONS if isinstance(values.get(name), dict)), values)
    size = _size(text)
    release = min(_RELEASES, key=lambda name: abs(math.log(_RELEASES[name] / size))) if size else "2B"
    return f"Qwen/Qwen3-VL-{release}-Instruct"


_TEXT_SECTIONS = ("text_config", "thinker_config", "llm_config")


def _size(text: Mapping[str, Any]) -> float:
    """About how many numbers the layers have; of experts, the mean of all and of those that a token meets."""

    def number(name: str) -> float:
        value = text.get(name)
        return float(value) if type(value) is int and 0 < value < 2**31 else 0.0

    hidden, layers, wide = number("hidden_size"), number("num_hidden_layers"), number("intermediate_size")
    experts, chosen = number("num_experts"), number("num_experts_per_tok")
    if experts and chosen:
        wide = math.sqrt(experts * chosen) * number("moe_intermediate_size")
    return layers * hidden * (3 * wide + 3 * hidden) + hidden * number("vocab_size")
