"""transformers' own ``generate``, in bfloat16 and in float32: what most people would write first.

Patches and ids come from hybrid's image module and prompt builder: transformers' processor needs
torchvision. Every call reads its whole prompt, as ``generate`` does unless a cache is handed to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.base import BackendError, Prompt, Runtime
from backends.machine import peak_bytes
from benchmarks.peers import Peer
from benchmarks.peers.arrivals import sample
from router.bench.contenders import EXACT, Contender
from router.bench.engine import Facts, TimedAnswer
from router.models import Listener, find
from router.prompt import PromptBuilder
from router.types import Message

if TYPE_CHECKING:
    import torch

    from backends.base import DType

_NUMBERS: dict[DType, str] = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Transformers:
    """What a process must know to load the library."""

    checkpoint: Path
    dtype: DType
    threads: int

    def __call__(self) -> TransformersEngine:
        """Load it."""
        return TransformersEngine(self)


class TransformersEngine:
    """One model, which answers one request after the other."""

    def __init__(self, what: Transformers) -> None:
        started = time.perf_counter()
        from transformers import Qwen3VLForConditionalGeneration

        from backends.torch.loading import load

        runtime = Runtime(device="cpu", dtype=what.dtype, threads=what.threads)
        self.model = load(Qwen3VLForConditionalGeneration, what.checkpoint, runtime)
        seconds = time.perf_counter() - started
        self._builder = PromptBuilder.read(what.checkpoint)
        self._vision = Stopwatch()
        self.model.model.visual.register_forward_pre_hook(self._vision.start)
        self.model.model.visual.register_forward_hook(self._vision.stop)
        self.facts = Facts(seconds, _NUMBERS[what.dtype], "cpu", peak_bytes())

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Answer greedily with exactly ``output_tokens`` tokens."""
        started = time.perf_counter()
        plan = self._builder.plan(tuple(messages))
        plan.room(output_tokens, None, self._builder.config.text.context)
        planned = time.perf_counter()
        prompt = plan.prompt()
        prepared = time.perf_counter()
        self._vision.seconds = 0.0
        arrivals = Arrivals()
        written = self._generate(prompt, output_tokens, arrivals)
        if len(arrivals.at) != output_tokens:
            raise BackendError(f"generate gave {len(arrivals.at)} tokens, {output_tokens} were asked for")
        found = replace(
            sample(len(prompt.ids), started, arrivals.at),
            prefill_seconds=arrivals.at[0] - prepared,
            vision_seconds=self._vision.seconds,
            patches=0 if prompt.patches is None else len(prompt.patches),
            preprocess_seconds=prepared - planned if plan.images else 0.0,
        )
        return TimedAnswer(self._builder.tokenizer.decode(written), found)

    def _generate(self, prompt: Prompt, output_tokens: int, arrivals: Arrivals) -> list[int]:
        import torch

        inputs = inputs_of(prompt, self.model.dtype)
        with torch.inference_mode():
            ids = self.model.generate(
                **inputs,
                do_sample=False,
                min_new_tokens=output_tokens,
                max_new_tokens=output_tokens,
                streamer=arrivals,
            )
        written: list[int] = ids[0, len(prompt.ids) :].tolist()
        return written


def inputs_of(prompt: Prompt, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What transformers' processor would make of the prompt's messages."""
    import torch

    ids = torch.from_numpy(prompt.ids)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if prompt.patches is None or prompt.grid is None or prompt.spans is None:
        return inputs
    kinds = np.zeros_like(prompt.ids)  # 0 text, 1 image
    for first, end in prompt.spans:
        kinds[first:end] = 1
    return inputs | {
        "pixel_values": torch.from_numpy(prompt.patches).to(dtype),
        "image_grid_thw": torch.from_numpy(prompt.grid),
        "mm_token_type_ids": torch.from_numpy(kinds)[None],
    }


@dataclass
class Arrivals:
    """A streamer that keeps when each token came; ``generate`` shows it the prompt first."""

    at: list[float] = field(default_factory=list)
    _prompted: bool = False

    def put(self, _: torch.Tensor) -> None:
        """A token, or the prompt."""
        if self._prompted:
            self.at.append(time.perf_counter())
        self._prompted = True

    def end(self) -> None:
        """There are no more."""


@dataclass
class Stopwatch:
    """Adds up what a module's forward passes take."""

    seconds: float = 0.0
    _started: float = 0.0

    def start(self, *_: Any) -> None:
        """As a hook before the pass."""
        self._started = time.perf_counter()

    def stop(self, *_: Any) -> None:
        """As a hook after it."""
        self.seconds += time.perf_counter() - self._started


def _contender(dtype: DType, checkpoint: Path, _work: Path, threads: int, listener: Listener) -> Contender:
    folder = find(str(checkpoint), listener).folder
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return Contender(_name(dtype), Transformers(folder, dtype, threads), fidelity=EXACT, disk_bytes=size)


def _name(dtype: DType) -> str:
    return f"transformers-{dtype}"


PEERS = tuple(
    Peer(
        name=_name(dtype),
        module="transformers",
        install="pip install 'hybrid-router[torch]'",
        contender=partial(_contender, dtype),
    )
    for dtype in _NUMBERS
)
