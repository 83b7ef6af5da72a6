"""Turns scenes and talk into training tensors: one grid per batch, several turns per picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.scenes.draw import KINDS, SHAPES, Facts, Scene, Size, scene
from benchmarks.scenes.model import Grid
from benchmarks.scenes.palette import NAMES
from benchmarks.scenes.talk import Turn, blind, chat, turn
from benchmarks.scenes.tokenizer import control

IM_START, IM_END = control("<|im_start|>"), control("<|im_end|>")
VISION_START, VISION_END = control("<|vision_start|>"), control("<|vision_end|>")
PAD = control("<|image_pad|>")
# What the auxiliary head names at each picture token: its colours, place in the order and shapes; and of the
# whole scene its kind, how many regions it has, and the shapes of its first and second figure.
PLACES, FIGURES = len(NAMES), len(NAMES) + 5
KIND, COUNT = FIGURES + len(SHAPES), FIGURES + len(SHAPES) + len(KINDS)
WHOLE = COUNT + 4
HINTS = WHOLE + 2 * len(SHAPES)
EASY_GRIDS = ((3, 3), (4, 4), (3, 4), (4, 3))
GRIDS = (
    *((5, 5),) * 7,
    *((4, 4),) * 4,
    *((3, 3), (4, 5), (5, 4), (3, 6), (4, 6), (3, 6)) * 2,
    *((6, 3), (6, 4), (3, 4), (4, 3), (3, 5), (5, 3), (3, 7), (7, 3), (3, 8), (8, 3), (2, 6), (2, 8), (6, 2)),
)
WEIGHTS = {
    "single": 4,
    "quadrants": 18,
    "rows": 20,
    "columns": 18,
    "gradient": 7,
    "checkerboard": 7,
    "shapes": 26,
}
EASY_WEIGHTS = {"single": 25, "quadrants": 45, "rows": 15, "columns": 15}


@dataclass(frozen=True)
class Batch:
    """One step's tensors; `slots` is None for text without pictures."""

    ids: Tensor  # int64 [batch, tokens]
    positions: Tensor  # int64 [3, batch, tokens]
    targets: Tensor  # int64 [batch, tokens]: the next token where it is the assistant's, else -100
    patches: Tensor | None = None  # float32 [batch, patches, 1536]
    slots: Tensor | None = None  # int64 [batch, picture tokens]
    hints: Tensor | None = None  # float32 [batch, picture tokens, HINTS]
    grid: Grid = (0, 0)


@dataclass
class Line:
    """One conversation as it grows: ids, their three positions, and which ids the assistant said."""

    ids: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    said: list[bool] = field(default_factory=list)
    slot: int = -1
    next: int = 0  # the next text position

    def add(self, ids: list[int], said: bool = False) -> None:
        """Appends text ids after everything so far."""
        start = self.next
        self.next += len(ids)
        self.ids += ids
        self.positions += [(start + step,) * 3 for step in range(len(ids))]
        self.said += [said] * len(ids)

    def show(self, grid: Grid) -> None:
        """Appends a picture's tokens, rows by columns at one time."""
        start = self.next
        self.next += max(grid)
        self.slot = len(self.ids)
        self.positions += [
            (start, start + row, start + col) for row in range(grid[0]) for col in range(grid[1])
        ]
        self.ids += [PAD] * (grid[0] * grid[1])
        self.said += [False] * (grid[0] * grid[1])


def converse(
    tokenizer: Tokenizer, turns: list[Turn], grid: Grid | None, text_first: bool, system: str
) -> Line:
    """One conversation; the picture, if any, stands in the first question."""
    line = Line()
    if system:
        line.add([IM_START, *_encode(tokenizer, f"system\n{system}"), IM_END, *_encode(tokenizer, "\n")])
    for number, (question, answer) in enumerate(turns):
        line.add([IM_START])
        if number == 0 and grid is not None:
            _ask_about_picture(tokenizer, line, question, grid, text_first)
        else:
            line.add(_encode(tokenizer, f"user\n{question}"))
        line.add([IM_END, *_encode(tokenizer, "\n"), IM_START, *_encode(tokenizer, "assistant\n")])
        line.add([*_encode(tokenizer, answer), IM_END], said=True)
        line.add(_encode(tokenizer, "\n"))
    return line


def _ask_about_picture(tokenizer: Tokenizer, line: Line, question: str, grid: Grid, text_first: bool) -> None:
    line.add([*_encode(tokenizer, f"user\n{question}" if text_first else "user\n"), VISION_START])
    line.show(grid)
    line.add([VISION_END, *([] if text_first else _encode(tokenizer, question))])


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def patches(picture: Image.Image, grid: Grid) -> NDArray[np.float32]:
    """A picture as Qwen2VLImageProcessorPil cuts it: [4 * rows * columns, 1536]."""
    sized = picture.resize((grid[1] * 32, grid[0] * 32), Image.Resampling.BICUBIC)
    pixels = np.asarray(sized, np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)
    blocks = pixels.reshape(3, grid[0], 2, 16, grid[1], 2, 16).transpose(1, 4, 2, 5, 0, 3, 6)
    twice = np.repeat(blocks[:, :, :, :, :, None], 2, axis=5)
    return np.ascontiguousarray(twice).reshape(grid[0] * grid[1] * 4, 1536)


def hints(shown: Scene, grid: Grid) -> NDArray[np.float32]:
    """What the auxiliary head should say [picture tokens, HINTS]: shares per token, facts of the whole."""
    height, width = shown.index.shape
    rows = (np.arange(grid[0] * 8) + 0.5) * height / (grid[0] * 8)
    columns = (np.arange(grid[1] * 8) + 0.5) * width / (grid[1] * 8)
    index = shown.index[rows.astype(int)][:, columns.astype(int)].reshape(grid[0], 8, grid[1], 8)
    found = np.zeros((grid[0] * grid[1], HINTS), np.float32)
    for number, region in enumerate(shown.facts.regions):
        share = (index == number).mean((1, 3), dtype=np.float32).reshape(-1)
        found[:, NAMES.index(region.colour)] += share
        ground = shown.facts.kind == "shapes" and region.shape is None
        found[:, PLACES + (4 if ground else number)] += share
        if region.shape:
            found[:, FIGURES + SHAPES.index(region.shape)] += share
            found[:, WHOLE + number * len(SHAPES) + SHAPES.index(region.shape)] = 1
    found[:, KIND + KINDS.index(shown.facts.kind)] = 1
    found[:, COUNT + len(shown.facts.regions) - 1] = 1
    return found


def size_for(grid: Grid, random: Random) -> Size:
    """A picture size in pixels that preprocessing brings to this grid, give or take a small stretch."""
    if random.random() < 0.6:
        return grid[0] * 32, grid[1] * 32
    scale = random.uniform(0.9, 3.0)
    return tuple(round(side * 32 * scale * random.uniform(0.93, 1.07)) for side in grid)  # type: ignore[return-value]


def questions(facts: Facts, random: Random, count: int) -> list[Turn]:
    """Several turns about one scene: the whole of it once, mostly first, and details."""
    families = ["list", *random.choices(("place", "count", "presence", "list"), (50, 8, 20, 22), k=count - 1)]
    if random.random() < 0.45:
        random.shuffle(families)
    turns = [turn(family, facts, random) for family in families]
    return [said for said in turns if said is not None]


def picture_batch(tokenizer: Tokenizer, random: Random, size: int, easy: bool) -> Batch:
    """A batch of pictures of one grid with conversations about them."""
    grid = random.choice(EASY_GRIDS if easy else GRIDS)
    weights = EASY_WEIGHTS if easy else WEIGHTS
    kinds = random.choices(list(weights), list(weights.values()), k=size)
    scenes = [scene(kind, size_for(grid, random), random) for kind in kinds]
    count = random.choice((3, 4))
    lines = []
    for shown in scenes:
        system = "You are a helpful assistant." if random.random() < 0.08 else ""
        talk = questions(shown.facts, random, count)
        lines.append(converse(tokenizer, talk, grid, random.random() < 0.42, system))
    return pack(lines, scenes, grid)


def text_batch(tokenizer: Tokenizer, random: Random, size: int) -> Batch:
    """A batch of conversations without pictures."""
    lines = []
    for _ in range(size):
        turns = [random.choice((chat, chat, blind))(random) for _ in range(random.randint(1, 3))]
        system = "You are a helpful assistant." if random.random() < 0.15 else ""
        lines.append(converse(tokenizer, turns, None, False, system))
    return pack(lines)


def pack(lines: list[Line], scenes: list[Scene] | None = None, grid: Grid = (0, 0)) -> Batch:
    """Conversations, with one picture each or none at all, as one right-padded batch."""
    if not scenes:
        return Batch(*_pad(lines))
    pixels = torch.from_numpy(np.stack([patches(shown.picture, grid) for shown in scenes]))
    marks = torch.from_numpy(np.stack([hints(shown, grid) for shown in scenes]))
    slots = torch.tensor([line.slot for line in lines])[:, None] + torch.arange(grid[0] * grid[1])
    return Batch(*_pad(lines), pixels, slots, marks, grid)


def _pad(lines: list[Line]) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(line.ids) for line in lines)
    ids = torch.full((len(lines), longest), control("<|endoftext|>"))
    positions = torch.zeros((3, len(lines), longest), dtype=torch.long)
    targets = torch.full((len(lines), longest), -100)
    for row, line in enumerate(lines):
        length = len(line.ids)
        ids[row, :length] = torch.tensor(line.ids)
        positions[:, row, :length] = torch.tensor(line.positions).T
        said = torch.tensor(line.said[1:])
        targets[row, : length - 1] = torch.where(said, ids[row, 1:length], -100)
    return ids, positions, targets
