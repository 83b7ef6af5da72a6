"""The router: decide, load on first use, build the prompt, and run the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property

import backends
from backends.base import Backend, BackendError, Capability, Prompt, Runtime
from backends.export.recipe import Recipe
from backends.qwen3vl.images import Limits
from router.generate import Stop, generate
from router.grammar import Schemas
from router.models import SILENT, Listener, Model, ensure_export, find
from router.pieces import pieces
from router.policy import decide
from router.prompt import PromptBuilder
from router.sampling import BUILT_IN, FREE, Constraint, check, from_generation_config
from router.text import TextStream
from router.types import Chunk, Chunks, Completion, Decision, Request, Sampling


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer about to be given: who gives it and why, to which prompt, and the chunks as they come."""

    decision: Decision
    prompt: Prompt
    sampling: Sampling
    chunks: Chunks
    cancel: Stop  # called from any thread it ends ``chunks``, which then raise BackendError ``cancelled``


class Router:
    """Answers requests with one model, each by the backend that fits it; safe to use from many threads."""

    def __init__(
        self,
        model: str | Model | None = None,
        runtime: Runtime | None = None,
        recipe: Recipe | None = None,
        listener: Listener = SILENT,
    ) -> None:
        """``recipe``: how a backend that needs an export gets it; ``listener``: told of long steps."""
        self.model = model if isinstance(model, Model) else find(model, listener)
        self.runtime = runtime or Runtime()
        self.recipe = recipe
        self.listener = listener
        self._loaded: dict[str, Backend] = {}
        self._lock = threading.Lock()

    def decide(self, request: Request) -> Decision:
        """Which backend would answer ``request``, and why; nothing is loaded."""
        return decide(request, self._available)

    def answer(self, request: Request) -> Answer:
        """Everything up to the first token: errors come from here, not from the middle of the stream."""
        sampling = request.sampling.over(self._defaults)
        text = self._builder.config.text
        check(sampling, text.vocab)
        constraint = self._constraint(request)
        plan = self._planner(request).plan(request.messages)
        decision = self.decide(request)
        # refused before a backend is loaded, where the model itself is too small
        plan.room(request.sampling.max_tokens, sampling.max_tokens, text.context)
        decision, backend = self._load(decision)
        limit = plan.room(request.sampling.max_tokens, sampling.max_tokens, backend.context)
        sampling = replace(sampling, max_tokens=limit)
        prompt = plan.prompt()
        stream = TextStream(self._builder.tokenizer.decode, sampling.stop or ())
        stop = Stop()
        chunks = generate(backend, prompt, sampling, stream, self._builder.eos, stop, constraint)
        return Answer(decision, prompt, sampling, chunks, stop)

    def stream(self, request: Request) -> Chunks:
        """The answer as it comes; closing the generator frees everything it holds."""
        return self.answer(request).chunks

    def complete(self, request: Request) -> Completion:
        """The whole answer: the stream, joined."""
        answer = self.answer(request)
        with closing(answer.chunks):
            return join(list(answer.chunks), answer.decision)

    @cached_property
    def piece(self) -> Callable[[int], bytes]:
        """Gives the bytes of a token of an answer; none of a control token's."""
        return pieces(self._builder.tokenizer, self._builder.control_ids)

    @cached_property
    def _builder(self) -> PromptBuilder:
        return PromptBuilder.read(self.model.folder)

    def _planner(self, request: Request) -> PromptBuilder:
        """The builder, with the picture limits of this request."""
        limits = self._builder.limits
        least, most = request.min_pixels or limits.min_pixels, request.max_pixels or limits.max_pixels
        return replace(self._builder, limits=Limits(least, most))

    def _constraint(self, request: Request) -> Constraint:
        return FREE if request.json_schema is None else self._schemas.constraint(request.json_schema)

    @cached_property
    def _schemas(self) -> Schemas:
        return Schemas(self._builder.tokenizer, self._builder.config.text.vocab, self._builder.eos)

    @cached_property
    def _defaults(self) -> Sampling:
        return from_generation_config(self._builder.generation_config).over(BUILT_IN)

    @cached_property
    def _available(self) -> Mapping[str, Capability]:
        return {name: self._capability(name) for name in backends.names()}

    def _capability(self, name: str) -> Capability:
        found = backends.capability(name)
        if found.problem is None and self.model.is_export and not found.reads_export:
            return replace(found, problem=f"it reads a checkpoint, and {self.model.folder} is an export")
        return found

    def _load(self, decision: Decision) -> tuple[Decision, Backend]:
        """Load the backend decided on, or under "auto" the next that loads, and say so in the reason."""
        with self._lock:
            while True:
                try:
                    return decision, self._backend(decision.backend)
                except BackendError as error:
                    if not decision.fallbacks:
                        raise
                    self.listener.notice(f"{decision.backend} did not load ({error}); trying the next")
                    decision = _next(decision, error)

    def _backend(self, name: str) -> Backend:
        if name not in self._loaded:
            folder, runtime = self.model.folder, self.runtime
            if self._available[name].reads_export:
                checkpoint = None if self.model.is_export else folder
                folder = ensure_export(self.model, self.recipe, self.listener)
                runtime = replace(runtime, checkpoint=checkpoint)
            self._loaded[name] = backends.load(name, folder, runtime)
        return self._loaded[name]


def join(chunks: Sequence[Chunk], decision: Decision) -> Completion:
    """All the chunks of an answer as one."""
    last = chunks[-1]
    assert last.finish is not None
    assert last.stats is not None
    return Completion(
        text="".join(chunk.text for chunk in chunks),
        tokens=tuple(token for chunk in chunks for token in chunk.tokens),
        logprobs=tuple(score for chunk in chunks for score in chunk.logprobs),
        finish=last.finish,
        stats=last.stats,
        decision=decision,
    )


def _next(decision: Decision, error: BackendError) -> Decision:
    name, *rest = decision.fallbacks
    reason = f"{decision.reason}; {decision.backend} did not load ({error})"
    return Decision(name, reason, tuple(rest))
