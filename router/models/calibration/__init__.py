"""What an export is calibrated on: conversations and drawings, in the model's own tokens and template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import Prompt, Runtime
from backends.export import ImageEncoder, Samples
from backends.qwen3vl import VisionConfig
from router.models.calibration.conversations import ABOUT_IMAGES, HELD_OUT, IMAGE_HELD_OUT, PAIRS, Turns
from router.models.calibration.drawings import KINDS, drawings
from router.prompt import PromptBuilder
from router.types import Message, Picture


def samples(folder: Path) -> Samples:
    """The samples for the checkpoint in ``folder``: some thousand tokens, the same ones every time.

    BackendError ``model_invalid``: its tokenizer or template cannot be read.
    """
    builder = PromptBuilder.read(folder)
    images = drawings(2 * len(KINDS), seed=1)
    unseen = drawings(2 * len(KINDS), seed=2)[::4]  # some of the kinds, once each
    return Samples(
        prompts=[*_texts(builder, chain.from_iterable(PAIRS)), *_about_images(builder, images, ABOUT_IMAGES)],
        held_out=[*_texts(builder, HELD_OUT), *_about_images(builder, unseen, IMAGE_HELD_OUT)],
        load_tower=partial(load_tower, builder.config.vision),
    )


def load_tower(config: VisionConfig, folder: Path) -> ImageEncoder:
    """What the vision tower in ``folder``, exported in whichever precision, makes of a prompt's images."""
    # onnxruntime takes a moment to import, and every start reads the models' package
    from backends.onnx.vision import VisionEncoder

    encoder = VisionEncoder(folder, config, Runtime(device="cpu"))

    def encode(prompt: Prompt) -> list[NDArray[np.float32]]:
        assert prompt.patches is not None
        assert prompt.grid is not None
        features = encoder.encode(prompt.patches, prompt.grid)
        return [features.main, *features.deepstack]

    return encode


def _texts(builder: PromptBuilder, conversations: Iterable[Turns]) -> Iterator[Prompt]:
    for turns in conversations:
        yield _prompt(builder, [(turn,) for turn in turns])


def _about_images(
    builder: PromptBuilder, images: list[Picture], conversations: Iterable[Turns]
) -> Iterator[Prompt]:
    """Conversations about images, some of which come behind their questions."""
    for index, (image, (question, *turns)) in enumerate(zip(images, cycle(conversations), strict=False)):
        first = (image, question) if index % 4 < 2 else (question, image)
        yield _prompt(builder, [first, *((turn,) for turn in turns)])


def _prompt(builder: PromptBuilder, turns: list[tuple[str | Picture, ...]]) -> Prompt:
    messages = tuple(
        Message.of("assistant" if index % 2 else "user", *parts) for index, parts in enumerate(turns)
    )
    return builder.plan(messages).prompt()
