"""A chat: what was said, how answers are picked, and what each command does about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import BackendError, RequestError
from router.cli.chat import transcript
from router.cli.chat.answer import AnswerPrinter, tell
from router.cli.chat.commands import LEAVE, Command, help_text, parse, path, paths
from router.cli.chat.lines import Input
from router.cli.chat.settings import Defaults, changed, cost, listed
from router.cli.chat.stats import TurnStats, table
from router.cli.exit_codes import describe
from router.cli.terminal import decision_line, size
from router.images import InputLimits, open_image
from router.types import Decision, Message, Picture, Request


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
    def images(self) -> tuple[Picture, ...]:
        """Those of all messages, then those that wait."""
        return (*(image for message in self.messages for image in message.images), *self.waiting)

    def shown(self, *images: Picture) -> Conversation:
        """With more images for the next question."""
        return replace(self, waiting=(*self.waiting, *images))

    def dropped(self) -> Conversation:
        """Without the images that wait."""
        return replace(self, waiting=())

    def asked(self, text: str) -> Conversation:
        """With a question about the images that waited."""
        return Conversation((*self.messages, Message.of("user", *self.waiting, text)))

    def answered(self, text: str) -> Conversation:
        """With an answer to the last question."""
        return replace(self, messages=(*self.messages, Message.of("assistant", text)))

    def cleared(self) -> Conversation:
        """The system prompt alone."""
        return Conversation(tuple(message for message in self.messages if message.role == "system"))


class ChatSession:
    """One conversation with one model; each step happens whole or changes nothing."""

    def __init__(
        self,
        speaker: AnswerPrinter,
        conversation: Conversation,
        settings: Request,
        defaults: Defaults,
        accepted: InputLimits,
    ) -> None:
        """``settings``: a request whose messages are not looked at; ``accepted``: which images are read."""
        self.conversation = conversation
        self.settings = settings
        self.turns: list[TurnStats] = []
        self._speaker = speaker
        self._router = speaker.router
        self._defaults = defaults
        self._accepted = accepted
        self._commands: Mapping[str, Callable[[str], None]] = {
            "image": self._image,
            "drop": self._drop,
            "clear": self._clear,
            "save": lambda file: self._save(file, over=False),
            "save!": lambda file: self._save(file, over=True),
            "load": self._load,
            "set": self._set,
            "backend": self._backend,
            "stats": self._stats,
            "help": lambda _: tell(help_text()),
        }

    def go_on(self, source: Input) -> None:
        """Take what comes from ``source`` until it ends, or /exit."""
        while True:
            try:
                text = source.read(len(self.conversation.waiting))
                entry = None if text is None else parse(text)
                if entry is None or entry == LEAVE:
                    return
                if isinstance(entry, Command):
                    self._commands[entry.name](entry.argument)
                elif self._ask(entry):
                    raise KeyboardInterrupt
            except (RequestError, BackendError) as failure:
                tell(f"hybrid: {describe(failure)}")
            except KeyboardInterrupt:
                # without anybody to ask the next question, it is the chat that is to stop
                if not source.interactive:
                    raise

    def _ask(self, text: str) -> bool:
        """Answer a question; True: it was stopped."""
        if not text.strip():
            return False
        asked = self.conversation.asked(text)
        try:
            said = self._speaker.say(replace(self.settings, messages=asked.messages))
        except (RequestError, BackendError) as failure:
            full = failure.code == "context_length_exceeded" and bool(self.conversation.messages)
            over = "; /clear starts over" if full else ""
            tell(f"hybrid: {describe(failure)} (the question is not kept{over})")
            return False
        if said.turn is not None:
            self.conversation = asked.answered(said.text)
            self.turns.append(said.turn)
        return said.stopped

    def _image(self, argument: str) -> None:
        files = paths(argument)
        images = [open_image(file, self._accepted) for file in files]
        shown = self.conversation.shown(*images)
        self._ready(shown, self.settings)
        self.conversation = shown
        for file, image in zip(files, images, strict=True):
            width, height = image.size
            tokens = cost(image, self.settings, self._defaults)
            tell(f"{Path(file).name}: {width}x{height}, {tokens} tokens of the next question")

    def _drop(self, _: str) -> None:
        count = len(self.conversation.waiting)
        self.conversation = self.conversation.dropped()
        tell(f"{_count(count, 'image')} dropped" if count else "no image waits for the next question")

    def _clear(self, _: str) -> None:
        self.conversation = self.conversation.cleared()
        self.turns = []

    def _save(self, argument: str, *, over: bool) -> None:
        target = transcript.write(path(argument), transcript.to_json(self.conversation.messages), over=over)
        left_out = "; images that wait are left out" if self.conversation.waiting else ""
        tell(f"{self._amount()} in {target} ({size(target.stat().st_size)}){left_out}")

    def _load(self, argument: str) -> None:
        file = paths(argument)[0]
        try:
            loaded = Conversation(transcript.from_json(transcript.read(file), self._accepted))
            self._ready(loaded, self.settings)
        except RequestError as error:
            raise RequestError(f"{file!r}: {error}", code=error.code) from None
        self.conversation, self.turns = loaded, []
        tell(f"{self._amount()} from {file}")

    def _set(self, assignment: str) -> None:
        before = list(listed(self.settings, self._defaults)) if assignment else []
        if assignment:
            scores = self._speaker.style.as_object
            self.settings = changed(self.settings, assignment, self._defaults, scores=scores)
        for line in listed(self.settings, self._defaults):
            if line not in before:
                tell(line)

    def _backend(self, name: str) -> None:
        settings = replace(self.settings, backend=None if name == "auto" else name)
        decision = self._ready(self.conversation, settings)
        self.settings = settings
        tell(decision_line(decision))

    def _stats(self, _: str) -> None:
        from rich.console import Console

        if self.turns:
            Console(stderr=True).print(table(self.turns))
        else:
            tell("nothing was answered yet")

    def _ready(self, conversation: Conversation, settings: Request) -> Decision:
        """Who would answer the next question. RequestError: nobody could, whatever it is."""
        try:
            return self._router.decide(replace(settings, messages=conversation.asked("").messages))
        except RequestError as error:
            if error.code != "context_length_exceeded" or not conversation.images:
                raise
            smaller = "/set max_pixels=N reads images smaller"
            raise RequestError(f"{error}; {smaller}", code=error.code) from None

    def _amount(self) -> str:
        messages = self.conversation.messages
        images = sum(len(message.images) for message in messages)
        shown = f" and {_count(images, 'image')}" if images else ""
        return f"{_count(len(messages), 'message')}{shown}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
