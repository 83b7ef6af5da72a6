"""llama.cpp, with its own rounding of the language model and the vision tower in float16.

Ids and places come from hybrid's prompt builder and go to the library as they are; a follow-up goes on from
what it still holds, as its server does. The end token is passed over, since the answers have a given length.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError
from backends.machine import peak_bytes
from backends.qwen3vl import PositionIds, position_ids
from benchmarks.peers import Peer
from benchmarks.peers.arrivals import sample
from benchmarks.peers.llama_files import KINDS, prepare
from router.bench.contenders import Contender
from router.bench.engine import Facts, TimedAnswer
from router.models import Listener
from router.prompt import Plan, PromptBuilder
from router.types import Message

if TYPE_CHECKING:
    from benchmarks.peers.llama_library import Library, Look


@dataclass(frozen=True)
class LlamaCpp:
    """What a process must know to load the library."""

    text: Path
    vision: Path
    checkpoint: Path  # tokenizer, template, limits of images
    kind: str
    threads: int

    def __call__(self) -> LlamaEngine:
        """Load it."""
        started = time.perf_counter()
        from benchmarks.peers.llama_library import Library

        builder = PromptBuilder.read(self.checkpoint)
        side = builder.config.vision.patch * builder.config.vision.merge  # a token's, in pixels
        least, most = (pixels // side**2 for pixels in (builder.limits.min_pixels, builder.limits.max_pixels))
        library = Library(self.text, self.vision, self.threads, least, most)
        seconds = time.perf_counter() - started
        return LlamaEngine(library, builder, Facts(seconds, f"{self.kind}, vision F16", "cpu", peak_bytes()))


class LlamaEngine:
    """One model, which answers one request after the other."""

    def __init__(self, library: Library, builder: PromptBuilder, facts: Facts) -> None:
        self.facts = facts
        self._library = library
        self._builder = builder
        self._held: Held | None = None

    def answer(self, messages: Sequence[Message], output_tokens: int) -> TimedAnswer:
        """Answer greedily with exactly ``output_tokens`` tokens."""
        started = time.perf_counter()
        plan = self._builder.plan(tuple(messages))
        plan.room(output_tokens, None, self._builder.config.text.context)
        places = position_ids(len(plan.ids), plan.spans, plan.grid, self._builder.config.vision.merge)
        kept = self._keep(plan, places, output_tokens)
        planned = time.perf_counter()
        fresh = [number for number, (first, _) in enumerate(plan.spans) if first >= kept]
        looks = [self._library.look(plan.images[number].pixels) for number in fresh]
        prepared = time.perf_counter()
        vision_seconds = self._prefill(plan, places, kept, dict(zip(fresh, looks, strict=True)))
        said, arrivals = self._decode(places.next_position, output_tokens)
        self._held = Held(plan, np.append(plan.ids, said[:-1]))
        found = replace(
            sample(len(plan.ids), started, arrivals),
            cached_tokens=kept,
            prefill_seconds=arrivals[0] - prepared,
            vision_seconds=vision_seconds,
            patches=sum(look.tokens for look in looks) * self._builder.config.vision.merge**2,
            preprocess_seconds=prepared - planned if looks else 0.0,
        )
        return TimedAnswer(self._builder.tokenizer.decode(said), found)

    def _keep(self, plan: Plan, places: PositionIds, output_tokens: int) -> int:
        """Forget what this request does not go on from; how many tokens of it are read already."""
        same = self._library.make_room(len(plan.ids) + output_tokens)
        kept = self._held.common(plan) if same and self._held is not None else 0
        self._held = None
        self._library.keep(int(places.ids[0, kept]))
        return kept

    def _prefill(self, plan: Plan, places: PositionIds, kept: int, looks: dict[int, Look]) -> float:
        """Read the rest of the prompt; the seconds that its images took to be encoded."""
        seconds, done = 0.0, kept
        for number, look in looks.items():
            first, end = map(int, plan.spans[number])
            if look.tokens != end - first:
                raise BackendError(
                    f"llama.cpp brings this image to {look.tokens} tokens, the others to {end - first}; "
                    "choose another size"
                )
            self._read(plan.ids[done:first], places, done)
            started = time.perf_counter()
            self._library.encode(look)
            seconds += time.perf_counter() - started
            self._library.place(look, int(places.ids[0, first]))
            done = end
        self._read(plan.ids[done:], places, done)
        return seconds

    def _decode(self, position: int, output_tokens: int) -> tuple[list[int], list[float]]:
        """The likeliest tokens, the first of which stands at ``position``, and when each was known."""
        said, arrivals = [self._library.best()], [time.perf_counter()]
        while len(said) < output_tokens:
            self._library.read(np.array(said[-1:]), position + len(said) - 1)
            said.append(self._library.best())
            arrivals.append(time.perf_counter())
        return said, arrivals

    def _read(self, ids: NDArray[np.int64], places: PositionIds, first: int) -> None:
        if len(ids):
            self._library.read(ids, int(places.ids[0, first]))


@dataclass(frozen=True, eq=False)
class Held:
    """What the library has read."""

    plan: Plan
    ids: NDArray[np.int64]  # of the prompt and the answer

    def common(self, plan: Plan) -> int:
        """How many tokens of ``plan`` it holds: none, but where the whole prompt before is how it begins."""
        whole, images = len(self.plan.ids), self.plan.images
        shown = plan.images[: len(images)]
        if not np.array_equal(plan.ids[:whole], self.plan.ids) or len(shown) < len(images):
            return 0
        if not all(np.array_equal(a.pixels, b.pixels) for a, b in zip(shown, images, strict=True)):
            return 0
        most = min(len(self.ids), len(plan.ids) - 1, *plan.spans[len(images) :, 0].tolist())
        different = np.flatnonzero(self.ids[:most] != plan.ids[:most])
        return int(different[0]) if len(different) else most


def _contender(kind: str, checkpoint: Path, work: Path, threads: int, listener: Listener) -> Contender:
    files = prepare(checkpoint, work, kind, listener)
    make = LlamaCpp(files.text, files.vision, checkpoint, kind, threads)
    return Contender(_name(kind), make, fidelity=files.fidelity, disk_bytes=files.nbytes)


def _name(kind: str) -> str:
    return f"llama.cpp-{kind}"


PEERS = tuple(
    Peer(
        name=_name(kind),
        module="llama_cpp",
        install="pip install -r benchmarks/peers/requirements.txt",
        contender=partial(_contender, kind),
    )
    for kind in KINDS
)
