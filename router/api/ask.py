"""What a client asks for: a request whose pictures are not read yet, and how the answer is to be sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from router.api.pictures import Source
from router.types import Message, Picture, Request, Role, Sampling

Form: TypeAlias = Literal["chat", "text"]  # of the answer: a chat completion, or a legacy text completion


@dataclass(frozen=True)
class Turn:
    """One message, its pictures not read yet."""

    role: Role
    parts: tuple[str | Source, ...]

    def message(self, read: Callable[[Source], Picture]) -> Message:
        """The message, each picture as ``read`` gives it."""
        return Message(self.role, tuple(p if isinstance(p, str) else read(p) for p in self.parts))


@dataclass(frozen=True)
class Ask:
    """A body, understood."""

    form: Form
    model: str
    turns: tuple[Turn, ...]
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False
    json_schema: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    ignored: tuple[str, ...] = ()  # names of fields that were not read

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the pictures come from, in order."""
        return tuple(part for turn in self.turns for part in turn.parts if isinstance(part, Source))

    def request(self, read: Callable[[Source], Picture], backend: str | None) -> Request:
        """What the router answers, by ``backend`` if one is named."""
        return Request(
            tuple(turn.message(read) for turn in self.turns),
            self.sampling,
            backend,
            self.min_pixels,
            self.max_pixels,
            self.json_schema,
        )
