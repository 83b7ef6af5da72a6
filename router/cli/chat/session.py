"""A chat: the conversation so far, how answers are picked, and what each command does about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import BackendError, RequestError
from router.cli.chat import transcript
from router.cli.chat.answer import AnswerPrinter
from router.cli.chat.commands import LEAVE, Command, help_text, parse, path, paths
from router.cli.chat.lines import Input
from router.cli.chat.settings import Defaults, changed, setting_lines, token_cost
from router.cli.chat.stats import TurnStats, table
from router.cli.exit_codes import describe
from router.cli.terminal import counted, decision_line, size, write_stderr
from router.images import InputLimits, open_image
from router.types import Decision, Message, Picture, Request


@dataclass(frozen=True, eq=False)
class Conversation:
    """A value: each step gives a new one, so a step that fails has changed nothing."""

    messages: tuple[Message, ...] = ()
    waiting_images: tuple[Picture, ...] = ()  # for the next question

    @classmethod
    def start(cls, system: str | None) -> Conversation:
        """A conversation without a question."""
        return cls(() if system is None else (Message.of("system", system),))

    @property
    def images(self) -> tuple[Picture, ...]:
        """Those of all messages, then those that wait."""
        return (*(image for message in self.messages for image in message.images), *self.waiting_images)

    def with_images(self, *images: Picture) -> Conversation:
        """With more images for the next question."""
        return replace(self, waiting_images=(*self.waiting_images, *images))

    def without_waiting_images(self) -> Conversation:
        """The messages alone."""
        return replace(self, waiting_images=())

    def with_question(self, text: str) -> Conversation:
        """With a question about the images that waited."""
        return Conversation((*self.messages, Message.of("user", *self.waiting_images, text)))

    def with_answer(self, text: str) -> Conversation:
        """With an answer to the last question."""
        return replace(self, messages=(*self.messages, Message.of("assistant", text)))

    def cleared(self) -> Conversation:
        """The system prompt alone."""
        return Conversation(tuple(message for message in self.messages if message.role == "system"))


class ChatSession:
    """One conversation with one model; each step happens whole or changes nothing."""

    def __init__(
        self,
        printer: AnswerPrinter,
        conversation: Conversation,
        settings: Request,
        defaults: Defaults,
        input_limits: InputLimits,
    ) -> None:
        """``settings``: a request whose messages are not looked at; ``input_limits``: of images read."""
        self.conversation = conversation
        self.settings = settings
        self.turn_stats: list[TurnStats] = []
        self._printer = printer
        self._router = printer.router
        self._defaults = defaults
        self._input_limits = input_limits
        self._commands: Mapping[str, Callable[[str], None]] = {
            "image": self._add_images,
            "drop": self._drop_images,
            "clear": self._clear,
            "save": lambda file: self._save(file, over=False),
            "save!": lambda file: self._save(file, over=True),
            "load": self._load,
            "set": self._set,
            "backend": self._set_backend,
            "stats": self._print_stats,
            "help": lambda _: write_stderr(help_text()),
        }

    def run(self, source: Input) -> None:
        """Answer questions and follow commands until ``source`` ends, or /exit."""
        while True:
            try:
                text = source.read(len(self.conversation.waiting_images))
                entry = None if text is None else parse(text)
                if entry is None or entry == LEAVE:
                    return
                if isinstance(entry, Command):
                    self._commands[entry.name](entry.argument)
                elif self._answer(entry):
                    raise KeyboardInterrupt
            except (RequestError, BackendError) as failure:
                write_stderr(f"hybrid: {describe(failure)}")
            except KeyboardInterrupt:
                # without anybody to ask the next question, it is the chat that is to stop
                if not source.interactive:
                    raise

    def _answer(self, question: str) -> bool:
        """Answer a question; True: it was stopped."""
        if not question.strip():
            return False
        conversation = self.conversation.with_question(question)
        try:
            answer = self._printer.print_answer(replace(self.settings, messages=conversation.messages))
        except (RequestError, BackendError) as failure:
            full = failure.code == "context_length_exceeded" and bool(self.conversation.messages)
            advice = "; /clear starts over" if full else ""
            write_stderr(f"hybrid: {describe(failure)} (the question is not kept{advice})")
            return False
        if answer.turn_stats is not None:
            self.conversation = conversation.with_answer(answer.text)
            self.turn_stats.append(answer.turn_stats)
        return answer.stopped

    def _add_images(self, argument: str) -> None:
        files = paths(argument)
        images = [open_image(file, self._input_limits) for file in files]
        conversation = self.conversation.with_images(*images)
        self._decide(conversation, self.settings)
        self.conversation = conversation
        for file, image in zip(files, images, strict=True):
            width, height = image.size
            tokens = token_cost(image, self.settings, self._defaults)
            write_stderr(f"{Path(file).name}: {width}x{height}, {tokens} tokens of the next question")

    def _drop_images(self, _: str) -> None:
        count = len(self.conversation.waiting_images)
        self.conversation = self.conversation.without_waiting_images()
        write_stderr(
            f"{counted(count, 'image')} dropped" if count else "no image waits for the next question"
        )

    def _clear(self, _: str) -> None:
        self.conversation = self.conversation.cleared()
        self.turn_stats = []

    def _save(self, argument: str, *, over: bool) -> None:
        target = transcript.write(path(argument), transcript.to_json(self.conversation.messages), over=over)
        left_out = "; images that wait are left out" if self.conversation.waiting_images else ""
        write_stderr(f"{self._summary()} in {target} ({size(target.stat().st_size)}){left_out}")

    def _load(self, argument: str) -> None:
        file = paths(argument)[0]
        try:
            loaded = Conversation(transcript.from_json(transcript.read(file), self._input_limits))
            self._decide(loaded, self.settings)
        except RequestError as error:
            raise RequestError(f"{file!r}: {error}", code=error.code) from None
        self.conversation, self.turn_stats = loaded, []
        write_stderr(f"{self._summary()} from {file}")

    def _set(self, assignment: str) -> None:
        previous_lines = list(setting_lines(self.settings, self._defaults)) if assignment else []
        if assignment:
            scores = self._printer.options.as_object
            self.settings = changed(self.settings, assignment, self._defaults, scores=scores)
        for line in setting_lines(self.settings, self._defaults):
            if line not in previous_lines:
                write_stderr(line)

    def _set_backend(self, name: str) -> None:
        settings = replace(self.settings, backend=None if name == "auto" else name)
        decision = self._decide(self.conversation, settings)
        self.settings = settings
        write_stderr(decision_line(decision))

    def _print_stats(self, _: str) -> None:
        from rich.console import Console

        if self.turn_stats:
            Console(stderr=True).print(table(self.turn_stats))
        else:
            write_stderr("nothing was answered yet")

    def _decide(self, conversation: Conversation, settings: Request) -> Decision:
        """Who would answer the next question. RequestError: nobody could, whatever it is."""
        try:
            return self._router.decide(replace(settings, messages=conversation.with_question("").messages))
        except RequestError as error:
            if error.code != "context_length_exceeded" or not conversation.images:
                raise
            advice = "/set max_pixels=N reads images smaller"
            raise RequestError(f"{error}; {advice}", code=error.code) from None

    def _summary(self) -> str:
        messages = self.conversation.messages
        images = sum(len(message.images) for message in messages)
        and_images = f" and {counted(images, 'image')}" if images else ""
        return f"{counted(len(messages), 'message')}{and_images}"
