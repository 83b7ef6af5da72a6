"""The router: decide, load on first use, build the prompt, and run the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from functools import cached_property

import backends
from backends.base import Backend, BackendError, Prompt, Runtime
from backends.machine import total_memory
from backends.store import Recipe
from router.detokenize import TextStream, pieces
from router.estimates import Speed, read_speeds
from router.generate import Cancellation, generate, iterate
from router.images import InputLimits
from router.models import SILENT, Listener, Model, find
from router.policy import Policy, decide, find_policy, refusal
from router.pool import BackendLoader, BackendPool
from router.resolve import ResolvedRequest, Resolver
from router.types import Chunk, Chunks, Completion, Decision, Request, Route, Sampling, Situation

_SHARE = 0.8  # of the machine's memory: what loaded backends may take together


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer about to be given: who gives it and why, to which prompt, and the chunks as they come."""

    decision: Decision
    prompt: Prompt
    sampling: Sampling
    chunks: Chunks
    cancel: Cancellation  # called from any thread: ``chunks`` end, with BackendError ``cancelled``


class Router:
    """Answers requests with one model, each by the backend that fits it; safe to use from many threads."""

    def __init__(
        self,
        model: str | Model | None = None,
        runtime: Runtime | None = None,
        recipe: Recipe | None = None,
        listener: Listener = SILENT,
        *,
        policy: str | Policy = "auto",
        memory: int | None = None,
        make_exports: bool = True,
        context: int | None = None,
        max_images: int = InputLimits.max_images,
    ) -> None:
        """``recipe``: how a backend that needs an export gets it; ``listener``: told of long steps.

        ``policy``: see `router.policy`. ``memory``: bytes that loaded backends may take, most of the
        machine's by default; those used least recently are let go. ``make_exports``: whether a model that has
        no export yet gets one when a backend needs it. ``context``: most tokens of a prompt and its answer,
        if fewer than the model's. ``max_images``: most in one conversation.
        """
        self.model = model if isinstance(model, Model) else find(model, listener)
        self.runtime = runtime or Runtime()
        self.recipe = recipe
        self.listener = listener
        self.context = context
        self.policy = find_policy(policy, backends.names()) if isinstance(policy, str) else policy
        self._resolver = Resolver(self.model.folder, max_images, listener)
        total = total_memory()
        budget = memory if memory is not None or total is None else int(_SHARE * total)
        loader = BackendLoader(self.model, self.runtime, recipe, listener, make_exports)
        self.pool = BackendPool(loader, budget)

    def decide(self, request: Request) -> Decision:
        """Which backend would answer ``request``, and why; nothing is loaded."""
        return self.route(request).decision

    def route(self, request: Request, others: int = 0) -> Route:
        """What is decided about ``request``, and from what; nothing is loaded.

        ``others``: requests that are to be answered at the same time. RequestError, BackendError: as `answer`
        would raise before it loads anything.
        """
        return self._route(self._resolver.resolve(request), others)

    def answer(self, request: Request, others: int = 0) -> Answer:
        """Everything up to the first token: errors come from here, not from the middle of the stream.

        ``others``: requests that are to be answered at the same time.
        """
        resolved = self._resolver.resolve(request)
        route = self._route(resolved, others)
        decision, backend = self._load(route.decision, again=request.backend is not None)
        sampling = replace(resolved.sampling, max_tokens=resolved.room(self._context(backend.context)))
        prompt = resolved.plan.prompt()
        builder, cancel = self._resolver.builder, Cancellation()
        text = TextStream(builder.tokenizer.decode, sampling.stop or ())
        chunks = generate(
            backend, prompt, sampling, text, builder.eos, cancel, resolved.constraint, resolved.rules
        )
        return Answer(decision, prompt, sampling, chunks, cancel)

    def stream(self, request: Request) -> Chunks:
        """The answer as it comes; closing the generator frees everything it holds."""
        return self.answer(request).chunks

    def complete(self, request: Request) -> Completion:
        """The whole answer: the stream, joined."""
        answer = self.answer(request)
        with closing(answer.chunks):
            return join(list(answer.chunks), answer.decision)

    async def astream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """As `stream`, for an event loop, which goes on meanwhile."""
        answer = await asyncio.to_thread(self.answer, request)
        async with aclosing(iterate(answer.chunks, answer.cancel)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def acomplete(self, request: Request) -> Completion:
        """As `complete`, for an event loop, which goes on meanwhile."""
        answer = await asyncio.to_thread(self.answer, request)
        async with aclosing(iterate(answer.chunks, answer.cancel)) as chunks:
            return join([chunk async for chunk in chunks], answer.decision)

    @cached_property
    def piece(self) -> Callable[[int], bytes]:
        """Gives the bytes of a token of an answer; none of a control token's."""
        return pieces(self._resolver.builder.tokenizer, self._resolver.builder.control_ids)

    def close(self) -> None:
        """Let go of every loaded backend; a later request loads what it needs again."""
        self.pool.clear()

    def _route(self, resolved: ResolvedRequest, others: int) -> Route:
        situation = self._situation(resolved, others)
        return Route(situation, decide(resolved.request, situation, self.policy))

    def _situation(self, resolved: ResolvedRequest, others: int) -> Situation:
        # refused before a backend is loaded, where the model itself is too small
        most = resolved.room(self._context(self._resolver.builder.config.text.context))
        candidates = tuple(
            replace(
                row,
                refusal=refusal(resolved.request, row),
                estimate=resolved.estimate(self._speeds.get(row.backend), most),
            )
            for row in self.pool.candidates()
        )
        plan = resolved.plan
        return Situation(candidates, others, len(plan.ids), plan.image_tokens, most)

    def _context(self, most: int) -> int:
        return most if self.context is None else min(most, self.context)

    def _load(self, decision: Decision, *, again: bool) -> tuple[Decision, Backend]:
        """Load the backend decided on, or under a policy the next that loads, and say so in the reason."""
        while True:
            try:
                return decision, self.pool.get(decision.backend, again=again)
            except BackendError as error:
                if not decision.fallbacks:
                    raise
                self.listener.notice(f"{decision.backend} did not load ({error}); trying the next")
                decision = _next(decision, error)

    @cached_property
    def _speeds(self) -> Mapping[str, Speed]:
        return read_speeds(self.model, self.runtime, self.recipe)


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
