"""OpenVINO GenAI's VLMPipeline with optimum-intel's own 4-bit conversion, for text and for images.

One pipeline answers both: this family's checkpoints become a language model that reads embeddings, which
LLMPipeline does not take. It brings its own template, tokenizer and image preprocessing; that these make
the prompt every other peer reads is checked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import BackendError
from backends.machine import peak_bytes
from benchmarks.peers import Peer
from benchmarks.peers.arrivals import sample
from benchmarks.peers.openvino_files import converted, group_size
from router.bench.contenders import Contender
from router.bench.engine import Facts, TimedAnswer
from router.models import Listener
from router.prompt import PromptBuilder
from router.types import Message, Picture

_NAME = "openvino-genai"


@dataclass(frozen=True)
class OpenVino:
    """What a process must know to load the pipeline."""

    folder: Path
    checkpoint: Path
    threads: int

    def __call__(self) -> OpenVinoEngine:
        """Load it."""
        return OpenVinoEngine(self)


class OpenVinoEngine:
    """One pipeline, which answers one request after the other."""

    def __init__(self, what: OpenVino) -> None:
        started = time.perf_counter()
        import openvino_genai

        self._pipeline = openvino_genai.VLMPipeline(what.folder, "CPU", INFERENCE_NUM_THREADS=what.threads)
        seconds = time.perf_counter() - started
        self._builder = PromptBuilder.read(what.checkpoint)
        self._turn = threading.Lock()  # a pipeline is for one caller at a time
        self._held: tuple[Sequence[Message], Any] = ((), None)
        numbers = f"int4, groups of {group_size(self._builder.config.text)}; head, vision int8"
        self.facts = Facts(seconds, numbers, "cpu", peak_bytes())

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Answer greedily with exactly ``output_tokens`` tokens."""
        started = time.perf_counter()
        with self._turn:
            said, arrivals = self._generate(messages, output_tokens)
        found = sample(said.perf_metrics.get_num_input_tokens(), started, arrivals)
        plan = self._builder.plan(tuple(messages))
        check("prompt tokens", found.prompt_tokens, len(plan.ids))
        check("tokens of answer", found.output_tokens, output_tokens)
        if plan.images:
            patches = int(np.prod(plan.grid, axis=1).sum())
            found = replace(found, vision_seconds=vision_seconds(said.perf_metrics), patches=patches)
        return TimedAnswer(said.texts[0], found)

    def _generate(self, messages: Sequence[Message], output_tokens: int) -> tuple[Any, list[float]]:
        import openvino_genai as library
        from openvino import Tensor

        arrivals: list[float] = []

        class Streamer(library.StreamerBase):  # type: ignore[misc]
            """Keeps when each token came; some come together."""

            def write(self, tokens: int | Sequence[int]) -> Any:
                """Take one or several."""
                count = 1 if isinstance(tokens, int) else len(tokens)
                arrivals.extend([time.perf_counter()] * count)
                return library.StreamingStatus.RUNNING

            def end(self) -> None:
                """There are no more."""

        config = library.GenerationConfig()
        config.do_sample, config.ignore_eos, config.max_new_tokens = False, True, output_tokens
        history, fresh = self._history(messages)
        said = self._pipeline.generate(
            history,
            images=[Tensor(image.pixels[None]) for message in fresh for image in message.images],
            generation_config=config,
            streamer=Streamer(),
        )
        self._held = messages, history
        return said, arrivals

    def _history(self, messages: Sequence[Message]) -> tuple[Any, Sequence[Message]]:
        """The conversation, and what is new of it: a history that goes on keeps its images' features."""
        import openvino_genai as library

        held, history = self._held
        if not continues(messages, held):
            held, history = (), library.ChatHistory()
        for message in as_history(messages)[len(held) :]:
            history.append(message)
        return history, messages[len(held) :]


def continues(messages: Sequence[Message], held: Sequence[Message]) -> bool:
    """Whether the conversation is the one that is held, gone on with."""
    begun = messages[: len(held)]
    return 0 < len(held) < len(messages) and all(one is other for one, other in zip(begun, held, strict=True))


def as_history(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The conversation, with the pipeline's own tag at each image's place."""
    history, images = [], 0
    for message in messages:
        content = ""
        for part in message.parts:
            content += f"<ov_genai_image_{images}>" if isinstance(part, Picture) else part
            images += isinstance(part, Picture)
        history.append({"role": message.role, "content": content})
    return history


def vision_seconds(metrics: Any) -> float:
    """From pixels to features, preprocessing included: the pipeline does not tell these apart.

    Its ``vision_encoding_durations`` are of the patch embedding alone, without the tower.
    """
    raw = metrics.vlm_raw_metrics
    microseconds = sum(raw.prepare_embeddings_durations) - sum(raw.text_embedding_durations)
    return float(microseconds) / 1e6


def check(what: str, count: int, wanted: int) -> None:
    """BackendError: the library did not do what was asked for, and its figures would mean something else."""
    if count != wanted:
        raise BackendError(f"it counts {count} {what}, {wanted} were asked for")


def _contender(checkpoint: Path, work: Path, threads: int, listener: Listener) -> Contender:
    files = converted(checkpoint, work, listener)
    make = OpenVino(files.folder, checkpoint, threads)
    return Contender(_NAME, make, fidelity=files.fidelity, disk_bytes=files.nbytes)


PEERS = (
    Peer(
        name=_NAME,
        module="openvino_genai",
        install="pip install openvino-genai 'hybrid-router[torch]'",
        contender=_contender,
    ),
)
