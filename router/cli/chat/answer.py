"""Answers as they come: computed in a thread of their own, shown, and stopped by Ctrl-C."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from router.cli.chat.stats import TurnStats
from router.cli.signals import iterate_in_thread
from router.cli.terminal import (
    as_json,
    decision_line,
    progress_line,
    size,
    usage_line,
    write,
    write_stderr,
)
from router.models import SILENT, Listener
from router.router import Answer, Router, join
from router.types import Chunk, Decision, Request


@dataclass(frozen=True)
class AnswerOptions:
    """What is printed of an answer, and how long it may take."""

    stream: bool = True
    as_object: bool = False
    usage: bool = False
    explain: bool = False
    timeout: float | None = None  # seconds


@dataclass(frozen=True)
class PrintedAnswer:
    """What is to be kept of an answer; nothing, if it was stopped before a word of it was printed."""

    text: str
    turn_stats: TurnStats | None
    stopped: bool = False


class ListenerRelay:
    """A router's listener, which passes all on to the one that shows progress at the time."""

    def __init__(self, target: Listener = SILENT) -> None:
        self.target = target
        self.listener = Listener(
            lambda name, done, total: self.target.progress(name, done, total),
            lambda text: self.target.notice(text),
        )


class AnswerPrinter:
    """Answers one request after the other with one router."""

    def __init__(self, router: Router, options: AnswerOptions, relay: ListenerRelay) -> None:
        self.router = router
        self.options = options
        self._relay = relay
        self._previous_decision: Decision | None = None
        self._previous_ended: threading.Event | None = None

    def print_answer(self, request: Request) -> PrintedAnswer:
        """Answer on stdout. RequestError, BackendError: it failed; what was printed until then stays there.

        Ctrl-C stops it, which is no error.
        """
        pending = PendingAnswer(self.router, request, self._previous_ended)
        self._previous_ended = pending.ended
        chunks: list[Chunk] = []
        stopped = False
        try:
            for chunk in self._chunks(pending):
                chunks.append(chunk)
                if self.options.stream and not self.options.as_object:
                    write(chunk.text)
        except KeyboardInterrupt:
            stopped = True
        finally:
            if not pending.ended.is_set():
                pending.stop()
            self._finish_text(chunks)
        return self._stopped(pending, chunks) if stopped else self._whole(pending, chunks)

    def _chunks(self, pending: PendingAnswer) -> Iterator[Chunk]:
        """The chunks, with something moving on stderr until the first."""
        chunks = iterate_in_thread(pending.chunks(), self.options.timeout)
        with progress_line("loading") as update:
            self._relay.target = Listener(
                lambda name, done, total: update(f"{name}: {size(done)} of {size(total)}"),
                lambda text: print(f"hybrid: {text}", file=sys.stderr),  # what moves there makes room for it
            )
            next(chunks)
        assert pending.answer is not None
        self._explain(pending.answer.decision)
        with progress_line("reading the question"):
            first = next(chunks)
        yield from chain([first], chunks)

    def _explain(self, decision: Decision) -> None:
        if self.options.explain:
            previous = self._previous_decision
            switch = f"{previous.backend} -> " if previous and previous.backend != decision.backend else ""
            write_stderr(f"{switch}{decision_line(decision)}")
        self._previous_decision = decision

    def _finish_text(self, chunks: list[Chunk]) -> None:
        """Print what was held back, and end the line, also of an answer that failed or was stopped."""
        if chunks and not self.options.as_object:
            write("\n" if self.options.stream else _text(chunks) + "\n")

    def _stopped(self, pending: PendingAnswer, chunks: list[Chunk]) -> PrintedAnswer:
        if pending.answer is None or not _text(chunks) or self.options.as_object:
            write_stderr("(stopped; the question is not kept)")
            return PrintedAnswer("", None, stopped=True)
        write_stderr("(stopped)")
        prompt = pending.answer.prompt
        count = sum(len(chunk.tokens) for chunk in chunks)
        return PrintedAnswer(
            _text(chunks),
            TurnStats(pending.answer.decision, len(prompt.ids), prompt.image_tokens, count),
            stopped=True,
        )

    def _whole(self, pending: PendingAnswer, chunks: list[Chunk]) -> PrintedAnswer:
        assert pending.answer is not None
        completion = join(chunks, pending.answer.decision)
        stats = completion.stats
        if self.options.as_object:
            write(as_json(completion) + "\n")
        elif completion.finish == "length":
            write_stderr(f"(cut after {stats.output_tokens} tokens; /set max_tokens=N changes that)")
        if self.options.usage:
            write_stderr(usage_line(stats))
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

    Stopping takes effect when the library that computes lets go, so a new answer waits for the end of the
    one before: two would share the cores and hold two caches.
    """

    def __init__(self, router: Router, request: Request, previous: threading.Event | None) -> None:
        """``previous``: set when the answer before this one has ended."""
        self.answer: Answer | None = None
        self.ended = threading.Event()
        self._router = router
        self._request = request
        self._previous_ended = previous
        self._stopped = threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        """An empty chunk once ``answer`` is known, then those of the answer. Errors as from Router.answer."""
        try:
            if self._previous_ended is not None:
                self._previous_ended.wait()
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
