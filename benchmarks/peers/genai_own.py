"""onnxruntime-genai as its examples use it: its own loop, its own greedy search, a token at a time.

Once with the graphs of hybrid's exports, which tells what hybrid's loop around the same library costs, and
once with the model its own builder makes of the checkpoint. Every answer reads its whole prompt anew.

Images are left out: its qwen3_vl pipeline asks for three graphs, of which the builder in the package makes
the decoder alone, and that one has no place for DeepStack features: it would be another model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from backends.base import BackendError, RequestError
from backends.machine import peak_bytes
from backends.store import Manifest, Recipe, RecipeName
from benchmarks.peers import Peer
from benchmarks.peers.arrivals import sample
from benchmarks.peers.genai_files import GRAPH, converted
from router.bench.contenders import Contender, Fidelity
from router.bench.engine import Facts, TimedAnswer
from router.models import Listener, export_to, find
from router.prompt import PromptBuilder
from router.types import Message

if TYPE_CHECKING:
    import onnxruntime_genai


@dataclass(frozen=True)
class GenaiOwn:
    """What a process must know to load the library."""

    folder: Path
    checkpoint: Path  # tokenizer and template
    threads: int
    numbers: str

    def __call__(self) -> GenaiEngine:
        """Load it."""
        return GenaiEngine(self)


class GenaiEngine:
    """One model; every answer has a generator of its own."""

    def __init__(self, what: GenaiOwn) -> None:
        started = time.perf_counter()
        import onnxruntime_genai

        config = onnxruntime_genai.Config(str(what.folder))
        options = {"intra_op_num_threads": what.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)
        seconds = time.perf_counter() - started
        self._builder = PromptBuilder.read(what.checkpoint)
        self.facts = Facts(seconds, what.numbers, "cpu", peak_bytes())

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Answer greedily with exactly ``output_tokens`` tokens. RequestError: there is an image."""
        import onnxruntime_genai

        started = time.perf_counter()
        plan = self._builder.plan(tuple(messages))
        if plan.images:
            raise RequestError(
                "its builder makes no vision tower, and its decoder takes no DeepStack features",
                code="unsupported_image",
            )
        plan.room(output_tokens, None, self._builder.config.text.context)
        planned = time.perf_counter()
        length = len(plan.ids) + output_tokens
        search = onnxruntime_genai.GeneratorParams(self._model)
        # shorter answers are not allowed: its end tokens have no chance until then
        search.set_search_options(do_sample=False, min_length=length, max_length=length)
        generator = onnxruntime_genai.Generator(self._model, search)
        generator.append_tokens(plan.ids)
        said, arrivals = _listen(generator, output_tokens)
        found = sample(len(plan.ids), started, arrivals)
        text = self._builder.tokenizer.decode(said)
        return TimedAnswer(text, replace(found, prefill_seconds=arrivals[0] - planned))


def _listen(generator: onnxruntime_genai.Generator, output_tokens: int) -> tuple[list[int], list[float]]:
    """The tokens and when each came; BackendError: it ended before."""
    said: list[int] = []
    arrivals: list[float] = []
    while not generator.is_done():
        generator.generate_next_token()
        said.append(int(generator.get_next_tokens()[0]))
        arrivals.append(time.perf_counter())
    if len(said) != output_tokens:
        raise BackendError(f"it answered with {len(said)} tokens, {output_tokens} were asked for")
    return said, arrivals


def _with_export(
    recipe: RecipeName, checkpoint: Path, work: Path, threads: int, listener: Listener
) -> Contender:
    folder = work / f"hybrid-{recipe}"
    model = find(str(checkpoint), listener)
    export_to(folder, model, Recipe(recipe=recipe), listener)
    numbers = f"int4, {recipe}, of hybrid's export"
    return Contender(
        _own(recipe),
        GenaiOwn(folder, model.folder, threads, numbers),
        fidelity=Fidelity.of(Manifest.read(folder).matrices),
        disk_bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        graph=folder / "text.onnx",
    )


def _with_builder(checkpoint: Path, work: Path, threads: int, listener: Listener) -> Contender:
    files = converted(checkpoint, work, listener)
    make = GenaiOwn(files.folder, checkpoint, threads, "int4 of its builder")
    graph = files.folder / GRAPH
    return Contender("genai-builder", make, fidelity=files.fidelity, disk_bytes=files.nbytes, graph=graph)


def _own(recipe: RecipeName) -> str:
    return f"genai-own-{recipe}"


PEERS = (
    *(
        Peer(
            name=_own(recipe),
            module="onnxruntime_genai",
            install="pip install onnxruntime-genai",
            contender=partial(_with_export, recipe),
        )
        for recipe in get_args(RecipeName)
    ),
    Peer(
        name="genai-builder",
        module="onnx_ir",
        install="pip install onnx-ir 'hybrid-router[torch]'",
        contender=_with_builder,
    ),
)
