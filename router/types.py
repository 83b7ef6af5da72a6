"""The values that travel between the caller, the router and the loop; all of them frozen."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import RequestError, Traits

Role: TypeAlias = Literal["system", "user", "assistant"]
Finish: TypeAlias = Literal["stop", "length"]
Chunks: TypeAlias = "Generator[Chunk, None, None]"  # not Iterator: a caller must be able to close() it

ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as every backend sees it: upright, opaque, 8 bits a channel."""

    pixels: NDArray[np.uint8]  # [height, width, 3], RGB

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True, eq=False)
class Message:
    """One turn: text and images in the order they are read."""

    role: Role
    parts: tuple[str | Picture, ...]

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise RequestError(f"role must be one of {', '.join(ROLES)}, got {self.role!r}", param="role")

    @classmethod
    def of(cls, role: Role, *parts: str | Picture) -> Message:
        """A message from its parts: ``Message.of("user", image, "What is this?")``."""
        return cls(role, parts)

    @property
    def images(self) -> tuple[Picture, ...]:
        """The images of this turn, in order."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


@dataclass(frozen=True)
class Sampling:
    """How tokens are picked and when to stop; None: no choice, see ``over``.

    The neutral value of every field, what each does and in which order, is in ``router/sampling``.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None  # (token id, added to its score)
    max_tokens: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop: tuple[str, ...] | None = None
    stop_token_ids: tuple[int, ...] | None = None
    seed: int | None = None
    logprobs: int | None = None  # how many alternatives to report; 0 reports the picked token alone

    def over(self, defaults: Sampling) -> Sampling:
        """These choices, with ``defaults`` where none was made."""
        chosen = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(defaults, **chosen)


@dataclass(frozen=True, eq=False)
class Request:
    """A conversation, how to answer it, and by which backend (None: the router picks)."""

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    backend: str | None = None
    min_pixels: int | None = None  # enlarge and shrink images to between these; None: as the model says
    max_pixels: int | None = None
    json_schema: str | None = None  # the answer is JSON of this schema, itself JSON text; None: any text

    @property
    def has_image(self) -> bool:
        """Whether an image stands anywhere in the conversation, not only in its last turn."""
        return any(message.images for message in self.messages)


@dataclass(frozen=True)
class Decision:
    """Which backend answers, why, and which are next if it cannot be loaded."""

    backend: str
    reason: str
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """How long an answer would take, by what was measured on this machine; every time in seconds."""

    load_seconds: float  # the model's, where it is not in memory
    first_token_seconds: float
    seconds: float  # of all the tokens that the answer may have, the first included


@dataclass(frozen=True)
class Candidate:
    """All that is known of one backend for one model and one request; nothing is loaded to know it."""

    backend: str
    traits: Traits
    problem: str | None = None  # why it cannot be used here with the model, in words; None when it can
    refusal: str | None = None  # why it cannot answer the request, its problem included
    exported: bool | None = None  # whether its export is there; None: it reads none
    loaded: bool = False
    offered: bool = True  # whether it is shown to people who did not name it
    context: int | None = None  # most tokens of prompt and answer together
    memory: int | None = None  # bytes that it takes while it answers, estimated
    estimate: Estimate | None = None  # None: nothing was measured

    @property
    def seconds(self) -> float | None:
        """How long the answer would take, loading included where it is needed; None: nothing was measured."""
        if self.estimate is None:
            return None
        return self.estimate.seconds + (0.0 if self.loaded else self.estimate.load_seconds)

    def fields(self) -> dict[str, object]:
        """As JSON holds it."""
        return {
            "backend": self.backend,
            "refusal": self.refusal,
            "loaded": self.loaded,
            "capability": capability_fields(
                self.traits, self.problem, exported=self.exported, context=self.context, memory=self.memory
            ),
            "estimate": self.estimate and asdict(self.estimate),
        }


def capability_fields(
    traits: Traits,
    problem: str | None,
    *,
    exported: bool | None = None,
    context: int | None = None,
    memory: int | None = None,
) -> dict[str, object]:
    """What a backend can do on one machine, as JSON holds it."""
    return {
        "sees_images": traits.sees_images,
        "problem": problem,
        "reads_export": traits.reads_export,
        "decodes_together": traits.decodes_together,
        "exported": exported,
        "context": context,
        "memory": memory,
    }


@dataclass(frozen=True)
class Situation:
    """All that is known of this machine and of one request to it: what a policy decides from."""

    candidates: tuple[Candidate, ...]  # one for each backend that this installation knows
    others: int = 0  # requests that are being answered, or wait for it, at the same time
    prompt_tokens: int = 0  # image places included
    image_tokens: int = 0
    max_tokens: int = 0  # that the answer may have

    def candidate(self, backend: str) -> Candidate | None:
        """What is known of ``backend``; None: there is none of that name."""
        return next((each for each in self.candidates if each.backend == backend), None)


@dataclass(frozen=True)
class Route:
    """A decision, and what it was made from."""

    situation: Situation
    decision: Decision

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Those to show to people."""
        chosen = self.decision.backend
        return tuple(each for each in self.situation.candidates if each.offered or each.backend == chosen)

    def fields(self) -> dict[str, object]:
        """As JSON holds it."""
        return {
            "decision": asdict(self.decision),
            "candidates": [each.fields() for each in self.candidates],
            "prompt_tokens": self.situation.prompt_tokens,
            "image_tokens": self.situation.image_tokens,
            "max_tokens": self.situation.max_tokens,
        }


@dataclass(frozen=True)
class Stats:
    """What one answer took; every time in seconds."""

    backend: str
    prompt_tokens: int  # image places included
    image_tokens: int
    output_tokens: int
    vision_seconds: float
    prefill_seconds: float  # vision included: from the prompt to its first scores
    decode_seconds: float  # all that came after the prefill
    resized: tuple[tuple[int, int], ...] = ()  # width and height in pixels of each image as it was read
    cached_tokens: int = 0  # of the prompt's, found in a kept cache and not read again
    cached_images: int = 0  # of the prompt's, not encoded again

    @property
    def first_token_seconds(self) -> float:
        """TTFT, without queueing and prompt building: the first token is picked from the prefill's scores."""
        return self.prefill_seconds

    @property
    def tokens_per_second(self) -> float:
        """Decode speed: tokens after the first over the seconds after the prefill; 0.0 without any."""
        if self.output_tokens < 2 or self.decode_seconds <= 0:
            return 0.0
        return (self.output_tokens - 1) / self.decode_seconds


@dataclass(frozen=True)
class TokenScore:
    """Natural log probability of a picked token, and of the likeliest ones at its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token id, log probability), likeliest first


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer; ``finish`` and ``stats`` are set on the last one only."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenScore, ...] = ()
    finish: Finish | None = None
    stats: Stats | None = None


@dataclass(frozen=True)
class Completion:
    """A whole answer: its stream, joined."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenScore, ...]
    finish: Finish
    stats: Stats
    decision: Decision
