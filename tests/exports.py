"""Exports of tiny models for the tests of the exporter and of the onnx backend."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from backends import Prompt, Runtime
from backends.export import MatrixError, Recipe, export
from backends.onnx.backend import OnnxBackend, OnnxSession
from backends.onnx.decoder import Decoder
from backends.onnx.embeddings import Embeddings
from backends.onnx.features import Features
from backends.qwen3vl import Config
from tests import tiny

SHAPES = {
    "untied": {},
    "tied": {"tie": True},
    "ragged": {"tie": True, "hidden": 72, "intermediate": 104},
    "like scenes": {"hidden": 192, "intermediate": 352},
}


class Tower:
    """transformers' vision tower in the place of the exported one."""

    def __init__(self, model: "torch.nn.Module") -> None:
        self.visual = model.model.visual
        self.seen = 0

    def encode(self, patches: np.ndarray, grid: np.ndarray, run_options: object = None) -> Features:
        self.seen += len(grid)
        with torch.inference_mode():
            out = self.visual(torch.from_numpy(patches), grid_thw=torch.from_numpy(grid), return_dict=True)
        return Features(out.pooler_output.numpy(), tuple(each.numpy() for each in out.deepstack_features))


def load(folder: Path, model: "torch.nn.Module", kept_bytes: int = 0) -> OnnxBackend:
    """As the backend loads itself; without kept caches, unless asked for: each prompt is read by itself."""
    decoder = Decoder(folder, Runtime(device="cpu", threads=1))
    embeddings = Embeddings.read(folder, decoder.notes["embeddings"])
    return OnnxBackend(Config.read(folder), decoder, embeddings, Tower(model), kept_bytes)


class Models(NamedTuple):
    folder: Path  # the checkpoint
    out: Path  # its export
    backend: OnnxBackend


@cache
def fp32() -> Models:
    """`tiny.model` in float32, with transformers' tower."""
    top = Path(tempfile.mkdtemp(prefix="hybrid-tests-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    folder, out = tiny.write(top / "checkpoint"), top / "export"
    out.mkdir()
    export(folder, out, Recipe(precision="fp32"))
    return Models(folder, out, load(out, tiny.model()))


@cache
def with_its_tower() -> OnnxBackend:
    """The export of `fp32`, loaded as it is."""
    return OnnxBackend.load(fp32().out, Runtime(device="cpu", threads=2, kept_bytes=0))


def scores(session: OnnxSession, prompt: Prompt, tokens: list[int]) -> np.ndarray:
    return np.stack([session.prefill(prompt).logits, *(session.decode(token) for token in tokens[:-1])])


def greedy(session: OnnxSession, prompt: Prompt, count: int) -> list[int]:
    tokens = [int(session.prefill(prompt).logits.argmax())]
    while len(tokens) < count:
        tokens.append(int(session.decode(tokens[-1]).argmax()))
    return tokens


def model(*, tie: bool = False, hidden: int = 64, intermediate: int = 96) -> "torch.nn.Module":
    """A tiny model of another shape: all its numbers redrawn as `tiny.model` draws them."""
    config = tiny.config()
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tie
    config.text_config.hidden_size = config.vision_config.out_hidden_size = hidden
    config.text_config.intermediate_size = intermediate
    original = tiny.config
    try:
        tiny.config = lambda vocab=1024: config  # type: ignore[assignment]
        return tiny.model()
    finally:
        tiny.config = original


def exported(folder: Path, recipe: Recipe, built: "torch.nn.Module") -> tuple[Path, Path, list[MatrixError]]:
    source, out = folder / "source", folder / "out"
    out.mkdir()
    built.save_pretrained(source)
    for name in tiny.COMPANIONS:
        (source / name).write_bytes((tiny.SCENES / name).read_bytes())
    return source, out, export(source, out, recipe)
