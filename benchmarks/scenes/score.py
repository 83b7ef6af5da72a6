"""Prints the quality table of a model folder: python -m benchmarks.scenes.score router/scenes --count 200

Everything runs through stock transformers. Table rows are teacher forced: an answer counts when each of its
tokens is the likeliest one, so that greedy decoding says exactly that. The plain pictures are generated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from jinja2 import Environment
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from backends.qwen3vl import ImageLimits, patches
from benchmarks.scenes import css
from benchmarks.scenes.batch import size_for
from benchmarks.scenes.draw import KINDS, Scene, scene
from benchmarks.scenes.exam import EXAM_GRIDS, ROWS
from benchmarks.scenes.talk import Turn, blind, chat, describe, turn, unseen
from benchmarks.scenes.tokenizer import control

PAD = "<|image_pad|>"


@dataclass(frozen=True)
class Question:
    """One picture (or none), one question about it and its true answer."""

    question: str
    answer: str
    picture: Image.Image | None = None
    text_first: bool = False


class Reader:
    """A model folder as stock transformers reads it, with the folder's own template and tokenizer."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        self.model: Any = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.limits = ImageLimits.read(folder)
        self.template = Environment().from_string((folder / "chat_template.jinja").read_text())

    def inputs(self, asked: Question) -> dict[str, Tensor]:
        """What the stock model takes: ids, and patches and grid when there is a picture."""
        text: dict[str, str] = {"type": "text", "text": asked.question}
        parts = [text] if asked.picture is None else [{"type": "image"}, text]
        message = {"role": "user", "content": parts[::-1] if asked.text_first else parts}
        prompt = self.template.render(messages=[message], add_generation_prompt=True)
        seen = {}
        if asked.picture is not None:
            rows, grid = patches(np.asarray(asked.picture.convert("RGB")), self.limits)
            prompt = prompt.replace(PAD, PAD * (grid[1] * grid[2] // 4))
            seen = {"pixel_values": torch.from_numpy(rows), "image_grid_thw": torch.tensor([grid])}
        return {"input_ids": torch.tensor([self.tokenizer.encode(prompt).ids]), **seen}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def right(self, asked: Question) -> bool:
        """Whether every token of the true answer is the likeliest one."""
        inputs = self.inputs(asked)
        answer = [*self.tokenizer.encode(asked.answer).ids, control("<|im_end|>")]
        ids = torch.cat([inputs.pop("input_ids"), torch.tensor([answer[:-1]])], 1)
        kinds = (ids == control(PAD)).int()
        logits = self.model(input_ids=ids, mm_token_type_ids=kinds, **inputs).logits
        return bool(logits[0, -len(answer) :].argmax(-1).tolist() == answer)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def say(self, asked: Question) -> str:
        """The greedy answer of stock `generate`."""
        inputs = self.inputs(asked)
        kinds = (inputs["input_ids"] == control(PAD)).int()
        ids = self.model.generate(**inputs, mm_token_type_ids=kinds, do_sample=False, max_new_tokens=48)
        new = ids[0, inputs["input_ids"].shape[1] :].tolist()
        text: str = self.tokenizer.decode(new, skip_special_tokens=True)
        return text


def main() -> None:
    """Reads the options and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200, help="scenes per family and order")
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    reader = Reader(options.folder, options.dtype)
    print(
        f"Held-out wordings, {options.count} fresh scenes a cell, {options.dtype}, percent exactly right.\n"
    )
    print("| scene | question | picture first | text first | wrong picture | DeepStack zeroed |")
    print("|---|---|---|---|---|---|")
    for kind, family in [*ROWS, ("quadrants", "unseen"), ("rows", "unseen"), ("columns", "unseen")]:
        print(_row(reader, kind, family, Random(options.seed), options.count), flush=True)
    for name, ask in (("small talk", chat), ("about no picture", blind)):
        print(f"| none | {name} | {_talk(reader, ask, Random(options.seed), options.count):.1f} | | | |")
    print()
    plain(reader)


def _row(reader: Reader, kind: str, family: str, random: Random, count: int) -> str:
    shares = []
    cases = [case(kind, family, random) for _ in range(count)]
    others = [scene(random.choice(KINDS), shown.index.shape, random) for shown, _ in cases]
    for text_first in (False, True):
        asked = [Question(*said, shown.picture, text_first) for shown, said in cases]
        shares.append(_share(reader.right, asked))
    shares.append(_share(reader.right, [Question(*cases[n][1], others[n].picture) for n in range(count)]))
    hooks = [
        merger.register_forward_hook(_zero) for merger in reader.model.model.visual.deepstack_merger_list
    ]
    shares.append(_share(reader.right, [Question(*said, shown.picture) for shown, said in cases]))
    for hook in hooks:
        hook.remove()
    return f"| {kind} | {family} | " + " | ".join(f"{share:.1f}" for share in shares) + " |"


def _zero(module: Any, inputs: Any, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def case(kind: str, family: str, random: Random) -> tuple[Scene, Turn]:
    """A fresh scene with a question that training never worded so."""
    while True:
        shown = scene(kind, size_for(random.choice(EXAM_GRIDS), random), random)
        if family == "unseen":
            return shown, (unseen(kind, random), describe(shown.facts))
        said = turn(family, shown.facts, random, held_out=True)
        if said is not None:
            return shown, said


def _share(right: Callable[[Question], bool], asked: list[Question]) -> float:
    return 100 * sum(map(right, asked)) / len(asked)


def _talk(reader: Reader, ask: Callable[[Random, bool], Turn], random: Random, count: int) -> float:
    return _share(reader.right, [Question(*ask(random, True)) for _ in range(count)])


def plain(reader: Reader) -> None:
    """Prints what the model says to quadrants in plain CSS colours, drawn without draw.py."""
    print("| plain picture | true | picture first | text first |\n|---|---|---|---|")
    good = 0
    for name, colours, picture in css.pictures():
        answers = [
            reader.say(Question("What colours do you see?", "", picture, order)) for order in (False, True)
        ]
        good += sum(css.names(answer) == colours for answer in answers)
        print(f"| {name} | {', '.join(colours)} | {answers[0]} | {answers[1]} |")
    print(f"\n{good} of {2 * css.COUNT} plain answers name all four colours in order.")


if __name__ == "__main__":
    main()
