"""Messages -> the ids, patches and image places that every backend reads.

::

    plan = builder.plan(messages)                    # ids and places; no image is touched
    limit = plan.room(max_tokens, default, context)  # refuses what does not fit
    prompt = plan.prompt()                           # the images' patches

Control tokens come from the chat template alone. A text that spells one, in any role, becomes the ids of its
characters: each run of plain text between two control tokens, the template's words and the message's
together, is tokenized with the special tokens switched off. Added tokens that a tokenizer does not call
special, like Qwen's ``<think>`` and ``<tool_call>``, are words of the model rather than control: they can
neither end a turn nor place an image, earlier answers are full of them, and so a text may spell them, as
with transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from backends.base import BackendError, Prompt, RequestError
from backends.qwen3vl import Config, Grid, ImageLimits, grid_of, image_tokens, patches, size_of
from router.images import InputLimits
from router.prompt.checkpoint import (
    control_ids,
    read_end_tokens,
    read_generation_config,
    read_template,
    read_tokenizer,
    tokenizer_file,
)
from router.prompt.conversation import (
    MAX_CHARS,
    as_templates_read,
    chars_of,
    check,
    named_parts,
    too_long,
)
from router.prompt.template import ChatTemplate, Rendered
from router.types import Message, Picture


@dataclass(frozen=True, eq=False)
class Plan:
    """A prompt whose images are placed but not yet read."""

    ids: NDArray[np.int64]  # [tokens]
    spans: NDArray[np.int64]  # [images, 2]: first pad and one past the last pad in ids
    grid: NDArray[np.int64]  # [images, 3]: t, h, w in patches
    images: tuple[Picture, ...]
    limits: ImageLimits

    @property
    def image_tokens(self) -> int:
        """How many of the ids are places for image features."""
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())

    def room(self, max_tokens: int | None, default: int | None, context: int) -> int:
        """How many tokens the answer may have: ``max_tokens``, else at most ``default``, else all that fit.

        RequestError ``context_length_exceeded``: prompt and answer together are longer than ``context``.
        """
        free = context - len(self.ids)
        if max_tokens is None and free >= 1:
            return free if default is None else min(free, default)
        if max_tokens is not None and free >= max_tokens:
            return max_tokens
        prompt = f"the prompt is {len(self.ids)} tokens"
        if self.images:
            prompt += f" ({self.image_tokens} of them images)"
        if max_tokens is not None:
            prompt += f" and max_tokens is {max_tokens}"
        advice = "shorten the prompt" if free < 1 else f"shorten the prompt or ask for at most {free}"
        raise too_long(
            f"{prompt}; prompt and answer together may be {context}: {advice}",
            param="messages" if free < 1 else "max_tokens",
        )

    def prompt(self) -> Prompt:
        """Read the images. BackendError ``internal_inconsistency``: they do not fit their places."""
        if not self.images:
            return Prompt(self.ids)
        cut = [patches(image.pixels, self.limits) for image in self.images]
        rows = np.concatenate([rows for rows, _ in cut])
        grids = [grid for _, grid in cut]
        grid = np.array(grids, np.int64)
        if not np.array_equal(grid, self.grid) or len(rows) != int(grid.prod(axis=1).sum()):
            raise _inconsistent(
                f"places were made for images of {self.grid.tolist()}, and these are {grid.tolist()}"
            )
        return Prompt(self.ids, rows, grid, self.spans, tuple(map(size_of, grids)))


@dataclass(frozen=True, eq=False)
class PromptBuilder:
    """Builds the prompts of one model; read once, and shared by threads."""

    config: Config
    limits: ImageLimits
    tokenizer: Tokenizer  # reads special tokens in a text as text
    template: ChatTemplate
    controls: Mapping[str, int]  # text and id of every special token
    control_ids: frozenset[int]
    eos: frozenset[int]  # ids that end an answer
    generation_config: Mapping[str, Any]  # the model's sampling defaults
    max_chars: int = MAX_CHARS
    max_images: int = InputLimits.max_images

    @classmethod
    def read(cls, folder: Path, max_images: int = InputLimits.max_images) -> PromptBuilder:
        """Read a checkpoint folder.

        BackendError ``model_invalid`` names the file that is missing, damaged or of another kind of model.
        """
        config = Config.read(folder)
        tokenizer = read_tokenizer(folder, config.text.vocab)
        controls = control_ids(folder, tokenizer)
        if config.image_token not in controls.values():
            raise BackendError(
                f"{tokenizer_file(folder)} has no special token {config.image_token}, the image_token_id "
                "of config.json; copy both from one checkpoint",
                code="model_invalid",
            )
        generation_config = read_generation_config(folder)
        return cls(
            config=config,
            limits=ImageLimits.read(folder),
            tokenizer=tokenizer,
            template=read_template(folder, controls),
            controls=controls,
            control_ids=frozenset(controls.values()),
            eos=read_end_tokens(folder, generation_config, config.text.vocab),
            generation_config=generation_config,
            # a text of more characters than this cannot fit: no token has more than the longest
            max_chars=min(MAX_CHARS, config.text.context * max(map(len, tokenizer.get_vocab()))),
            max_images=max_images,
        )

    def plan(self, messages: tuple[Message, ...]) -> Plan:
        """Tokenize the conversation and place its images, which are not read.

        RequestError: the conversation is empty or out of order, its text is not valid or far too long, it has
        too many images or one of an impossible shape, or the model's template rejects it. BackendError: the
        template fails.
        """
        check(messages, self.max_chars, self.max_images, self.config.text.context)
        grids = [
            _grid(part, name, self.limits)
            for name, part in named_parts(messages)
            if isinstance(part, Picture)
        ]
        pads = [image_tokens(grid) for grid in grids]
        rendered = self._render(messages)
        ids, *runs = self._tokenize(rendered.runs)
        spans: list[tuple[int, int]] = []
        for control, run in zip(rendered.controls, runs, strict=True):
            token, times = self.controls[control], 1
            if token == self.config.image_token:
                times = pads[len(spans)] if len(spans) < len(pads) else 1
                spans.append((len(ids), len(ids) + times))
            ids += [token] * times
            ids += run
        if len(spans) != len(pads):
            raise self._misplaced(messages, len(spans), len(pads))
        return Plan(
            ids=np.array(ids, np.int64),
            spans=np.array(spans, np.int64).reshape(-1, 2),
            grid=np.array(grids, np.int64).reshape(-1, 3),
            images=tuple(image for message in messages for image in message.images),
            limits=self.limits,
        )

    def _render(self, messages: tuple[Message, ...]) -> Rendered:
        parts = sum(1 + len(message.parts) for message in messages)
        return self.template.render(
            [as_templates_read(m) for m in messages], parts, sum(map(chars_of, messages))
        )

    def _tokenize(self, runs: Sequence[str]) -> list[list[int]]:
        """The ids of each run of plain text; none of them is a control token's."""
        # of the tokenizer's calls the batch ones let other threads go on meanwhile
        ids = [run.ids for run in self.tokenizer.encode_batch_fast(list(runs), add_special_tokens=False)]
        if not all(map(self.control_ids.isdisjoint, ids)):
            raise _inconsistent("the tokenizer made a control token from text")
        return ids

    def _misplaced(self, messages: tuple[Message, ...], places: int, images: int) -> Exception:
        if places > images:
            return _inconsistent(f"the chat template made {places} places for {images} images")
        for index, message in enumerate(messages):
            if message.images and message.role != "user":
                return RequestError(
                    f"this model reads no images in {message.role} messages; move them to a user message",
                    param=f"messages[{index}].content",
                )
        problem = f"the chat template leaves out {images - places} of {images} images"
        return BackendError(f"{self.template.origin}: {problem}; use the model's own", code="model_invalid")


def _grid(image: Picture, name: str, limits: ImageLimits) -> Grid:
    try:
        return grid_of(*image.size, limits)
    except RequestError as error:
        raise RequestError(str(error), code=error.code, param=name) from None


def _inconsistent(message: str) -> BackendError:
    return BackendError(
        f"{message}; this is a fault of hybrid, please report it", code="internal_inconsistency"
    )
