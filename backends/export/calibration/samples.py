"""What an export is calibrated on: prompts with their images, and the hidden states that they begin with.

Prompts come in two halves that are alike, whose agreement tells what is sure (`compensate.hessian`), and some
are held out to measure what calibration gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import Prompt
from backends.qwen3vl import Config, position_ids

Floats: TypeAlias = NDArray[np.float32]
# the features of a prompt's images, then DeepStack's: [image_tokens, hidden] each
ImageEncoder: TypeAlias = Callable[[Prompt], list[Floats]]


@dataclass(frozen=True, eq=False)
class Samples:
    """Prompts of the model itself, and what its vision tower makes of their images."""

    prompts: Sequence[Prompt]  # whose inputs are collected, in two halves that are alike
    held_out: Sequence[Prompt]  # on which is measured what that gave
    load_tower: Callable[[Path], ImageEncoder]  # from a folder with vision.onnx


@dataclass(frozen=True, eq=False)
class States:
    """All prompts on their way through the model, one behind the other."""

    hidden: Floats  # [tokens, hidden]
    position_ids: NDArray[np.int64]  # [3, tokens]: time, row and column
    ends: tuple[int, ...]  # of each prompt, in tokens
    image_slots: NDArray[np.int64]  # [image_tokens]: the tokens that are places of images
    deepstack: tuple[Floats, ...]  # [image_tokens, hidden] each: added there after layers 0, 1 ...


def embed_prompts(
    prompts: Sequence[Prompt],
    config: Config,
    embed: Callable[[NDArray[np.int64]], Floats],
    encode: ImageEncoder,
) -> States:
    """Embed the prompts and put the features of their images into them, as the onnx backend does."""
    ends = np.cumsum([len(prompt.ids) for prompt in prompts])
    hidden = embed(np.concatenate([prompt.ids for prompt in prompts]))
    positions = [
        position_ids(len(prompt.ids), prompt.spans, prompt.grid, config.vision.merge).ids
        for prompt in prompts
    ]
    slots = np.concatenate(
        [image_slots(prompt) + end - len(prompt.ids) for prompt, end in zip(prompts, ends, strict=True)]
    )
    encoded = [encode(prompt) for prompt in prompts if prompt.patches is not None]
    features = [np.concatenate(parts) for parts in zip(*encoded, strict=True)]
    if features:
        hidden[slots] = features[0]
    return States(hidden, np.concatenate(positions, 1), tuple(ends.tolist()), slots, tuple(features[1:]))


def image_slots(prompt: Prompt) -> NDArray[np.int64]:
    """Which of the prompt's tokens are places of images."""
    none = np.empty(0, np.int64)
    if prompt.spans is None:
        return none
    return np.concatenate([none, *(np.arange(first, end) for first, end in prompt.spans.tolist())])
