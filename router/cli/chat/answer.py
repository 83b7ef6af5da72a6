"""Answers as they come: computed in a thread of their own, shown, and stopped by Ctrl-C."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import click

from router.cli.chat.stats import TurnStats
from router.cli.signals import pump
from router.cli.terminal import as_json, decision_line, size, telling, usage_line, write
from router.models import SILENT, Listener
from router.router import Answer, Router, join
from router.types import Chunk, Decision, Request


@dataclass(frozen=True)
class Style:
    """What is shown of an answer, and how long it may take."""

    stream: bool = True
    as_object: bool = False
    usage: bool = False
    explain: bool = False
    timeout: float | None = None  # seconds


@dataclass(frozen=True)
class PrintedAnswer:
    """What is to be kept of an answer; nothing, if it was stopped before a word of it was shown."""

    text: str
    turn: TurnStats | None
    stopped: bool = False


def tell(text: str) -> None:
    """A line on stderr."""
    click.echo(text, err=True)


class ListenerRelay:
    """A router's listener that tells whoever shows progress at the time."""

    def __init__(self, now: Listener = SILENT) -> None:
        self.now = now
        self.listener = Listener(
            lambda name, done, total: self.now.progress(name, done, total), lambda text: self.now.notice(text)
        )


class AnswerPrinter:
    """Answers one request after the other with one router."""

    def __init__(self, router: Router, style: Style, ear: ListenerRelay) -> None:
        self.router = router
        self.style = style
        self._ear = ear
        self._decision: Decision | None = None  # of the answer before
        self._ended: threading.Event | None = None

    def say(self, request: Request) -> PrintedAnswer:
        """Answer on stdout. RequestError, BackendError: it failed; what was shown until then stays there.

        Ctrl-C stops it, which is no error.
        """
        asking = PendingAnswer(self.router, request, self._ended)
        self._ended = asking.ended
        chunks: list[Chunk] = []
        stopped = False
        try:
            for chunk in self._chunks(asking):
                chunks.append(chunk)
                if self.style.stream and not self.style.as_object:
                    write(chunk.text)
        except KeyboardInterrupt:
            stopped = True
        finally:
            if not asking.ended.is_set():
                asking.stop()
            self._end(chunks)
        return self._stopped(asking, chunks) if stopped else self._whole(asking, chunks)

    def _chunks(self, asking: PendingAnswer) -> Iterator[Chunk]:
        """The chunks, with something moving on stderr until the first."""
        chunks = pump(asking.chunks(), self.style.timeout)
        with telling("loading") as show:
            self._ear.now = Listener(
                lambda name, done, total: show(f"{name}: {size(done)} of {size(total)}"),
                lambda text: print(f"hybrid: {text}", file=sys.stderr),  # what moves there makes room for it
            )
            next(chunks)
        assert asking.answer is not None
        self._explain(asking.answer.decision)
        with telling("reading the question"):
            first = next(chunks)
        yield from chain([first], chunks)

    def _explain(self, decision: Decision) -> None:
        if self.style.explain:
            before = self._decision
            switch = f"{before.backend} -> " if before and before.backend != decision.backend else ""
            tell(f"{switch}{decision_line(decision)}")
        self._decision = decision

    def _end(self, chunks: list[Chunk]) -> None:
        """What was said so far, on a line of its own."""
        if chunks and not self.style.as_object:
            write("\n" if self.style.stream else _text(chunks) + "\n")

    def _stopped(self, asking: PendingAnswer, chunks: list[Chunk]) -> PrintedAnswer:
        if asking.answer is None or not _text(chunks) or self.style.as_object:
            tell("(stopped; the question is not kept)")
            return PrintedAnswer("", None, stopped=True)
        tell("(stopped)")
        prompt = asking.answer.prompt
        count = sum(len(chunk.tokens) for chunk in chunks)
        return PrintedAnswer(
            _text(chunks),
            TurnStats(asking.answer.decision, len(prompt.ids), prompt.image_tokens, count),
            stopped=True,
        )

    def _whole(self, asking: PendingAnswer, chunks: list[Chunk]) -> PrintedAnswer:
        assert asking.answer is not None
        completion = join(chunks, asking.answer.decision)
        stats = completion.stats
        if self.style.as_object:
            write(as_json(completion) + "\n")
        elif completion.finish == "length":
            tell(f"(cut after {stats.output_tokens} tokens; /set max_tokens=N changes that)")
        if self.style.usage:
            tell(usage_line(stats))
        return PrintedAnswer(
            completion.text,
            TurnStats(
                completion.decision, stats.prompt_tokens, stats.image_tokens, stats.output_tokens, stats
            ),
        )


def _text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


class PendingAnswer:
    """The chunks of an answer, and the way to end them.

    Stopping takes effect when the library that computes lets go, so a new question waits for the end of the
    one before: two would share the cores and hold two caches.
    """

    def __init__(self, router: Router, request: Request, before: threading.Event | None) -> None:
        """``before``: set when the question asked before this one has ended."""
        self.answer: Answer | None = None
        self.ended = threading.Event()
        self._router = router
        self._request = request
        self._before = before
        self._stopped = threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        """An empty chunk once ``answer`` is known, then those of the answer. Errors as from Router.answer."""
        try:
            if self._before is not None:
                self._before.wait()
            self.answer = answer = self._router.answer(self._request)
            with closing(answer.chunks) as chunks:
                yield Chunk("")
                if not self._stopped.is_set():
                    yield from chunks
        finally:
            self.ended.set()

    def stop(self) -> None:
        """End it soon; nothing that it still brings is of interest."""
        self._stopped.set()
        # one of the two sees the other: the answer is set before the flag is read, the flag before the answer
        if self.answer is not None:
            self.answer.cancel()
