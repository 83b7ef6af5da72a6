"""A request with its defaults filled in, checked and tokenized: what is known before a backend is."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from router.estimates import Speed
from router.images import InputLimits
from router.models import SILENT, Listener
from router.prompt import Plan, PromptBuilder
from router.sampling import (
    BUILT_IN,
    FREE,
    NO_RULES,
    Constraint,
    ModelRules,
    Schemas,
    check,
    check_numbers,
    from_generation_config,
    ignored,
    rules_from,
)
from router.types import Estimate, Request, Sampling


@dataclass(frozen=True, eq=False)
class ResolvedRequest:
    """A request that can be answered, as far as the model is concerned."""

    request: Request
    sampling: Sampling  # the request's, over the model's, over the built-in defaults
    plan: Plan
    constraint: Constraint = FREE  # for one answer
    rules: ModelRules = NO_RULES

    def room(self, context: int) -> int:
        """How many tokens the answer may have; RequestError ``context_length_exceeded``: see `Plan.room`."""
        return self.plan.room(self.request.sampling.max_tokens, self.sampling.max_tokens, context)

    def estimate(self, speed: Speed | None, max_tokens: int) -> Estimate | None:
        """How long a backend of this speed would take; None where what it takes was not measured."""
        if speed is None:
            return None
        patches = tuple(int(count) for count in self.plan.grid.prod(1))
        first = speed.seconds(len(self.plan.ids), 0, patches)
        whole = speed.seconds(len(self.plan.ids), max_tokens, patches)
        return None if first is None or whole is None else Estimate(speed.load_seconds, first, whole)


class Resolver:
    """Resolves the requests to one model; its files are read once, and shared by threads."""

    def __init__(
        self, folder: Path, max_images: int = InputLimits.max_images, listener: Listener = SILENT
    ) -> None:
        """``listener`` is told once what of the model's generation_config.json is not done."""
        self._folder = folder
        self._max_images = max_images
        self._listener = listener
        self._lock = threading.Lock()

    def resolve(self, request: Request) -> ResolvedRequest:
        """RequestError: something in the request is wrong, and what. BackendError: the model's files are."""
        with self._lock:  # so that the listener is told once
            model, rules = self._generation
        check(request.sampling, self.builder.config.text.vocab)
        constraint = FREE if request.json_schema is None else self._schemas.constraint(request.json_schema)
        plan = self._planner(request).plan(request.messages)
        sampling = layered(request.sampling, model, rules, len(plan.ids))
        return ResolvedRequest(request, sampling, plan, constraint, rules)

    @cached_property
    def builder(self) -> PromptBuilder:
        """The model's tokenizer, template and configuration."""
        return PromptBuilder.read(self._folder, self._max_images)

    @cached_property
    def _schemas(self) -> Schemas:
        return Schemas(self.builder.tokenizer, self.builder.config.text.vocab, self.builder.eos)

    @cached_property
    def _generation(self) -> tuple[Sampling, ModelRules]:
        """What the model's generation_config.json sets."""
        values = self.builder.generation_config
        model, rules = from_generation_config(values), rules_from(values, self.builder.config.text.vocab)
        for sentence in ignored(values):
            self._listener.notice(f"generation_config.json: {sentence}")
        return model, rules

    def _planner(self, request: Request) -> PromptBuilder:
        """The builder, with the image limits of this request."""
        if request.min_pixels is None and request.max_pixels is None:
            return self.builder
        limits = self.builder.limits
        least, most = request.min_pixels or limits.min_pixels, request.max_pixels or limits.max_pixels
        limits = replace(limits, min_pixels=least, max_pixels=most)
        return replace(self.builder, limits=limits)


def layered(requested: Sampling, model: Sampling, rules: ModelRules, prompt_tokens: int) -> Sampling:
    """What a request asks, over what its model's files say, over the built-in values.

    RequestError: the model's ``max_length`` leaves no room for an answer, or fields contradict each other.
    """
    sampling = requested.over(model)
    if rules != NO_RULES:
        sampling = rules.with_lengths(sampling, prompt_tokens)
    sampling = sampling.over(BUILT_IN)
    least, most = sampling.min_tokens or 0, sampling.max_tokens or 0
    if requested.min_tokens is None and least > most:  # the model's floor gives way to the request
        sampling = replace(sampling, min_tokens=most)
    check_numbers(sampling)
    return sampling
