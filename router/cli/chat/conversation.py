"""What was said so far, and the pictures that wait for the next question."""

from __future__ import annotations

from dataclasses import dataclass, replace

from router.types import Message, Picture


@dataclass(frozen=True, eq=False)
class Conversation:
    """A value: each step gives a new one, so a step that fails has changed nothing."""

    messages: tuple[Message, ...] = ()
    waiting: tuple[Picture, ...] = ()

    @classmethod
    def begin(cls, system: str | None) -> Conversation:
        """A conversation in which nothing was asked yet."""
        return cls(() if system is None else (Message.of("system", system),))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those of all messages, then those that wait."""
        return (*(picture for message in self.messages for picture in message.pictures), *self.waiting)

    def shown(self, *pictures: Picture) -> Conversation:
        """With more pictures for the next question."""
        return replace(self, waiting=(*self.waiting, *pictures))

    def dropped(self) -> Conversation:
        """Without the pictures that wait."""
        return replace(self, waiting=())

    def asked(self, text: str) -> Conversation:
        """With a question about the pictures that waited."""
        return Conversation((*self.messages, Message.of("user", *self.waiting, text)))

    def answered(self, text: str) -> Conversation:
        """With an answer to the last question."""
        return replace(self, messages=(*self.messages, Message.of("assistant", text)))

    def cleared(self) -> Conversation:
        """The system prompt alone."""
        return Conversation(tuple(message for message in self.messages if message.role == "system"))
