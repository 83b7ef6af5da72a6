"""``hybrid chat``: one question after the other, each answered with what was said before in mind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import (
    NOTICE,
    check_used,
    conversation_options,
    image_limits,
    make_router,
    model_options,
    sampling,
    sampling_options,
    time_limit,
)
from router.cli.terminal import listening

if TYPE_CHECKING:
    from router.cli.chat.lines import Input
    from router.cli.chat.session import ChatSession
    from router.models import Listener


@click.command()
@conversation_options
@model_options
@sampling_options
@time_limit
@click.option("--explain", is_flag=True, help="Say on stderr which backend answers and why.")
@click.option("--usage", is_flag=True, help="Say on stderr what each answer took.")
@click.option("--no-stream", is_flag=True, help="Print each answer when it is whole.")
@click.option("--json", "as_object", is_flag=True, help="Print a JSON object, on one line, for each answer.")
def chat(images: tuple[str, ...], **options: Any) -> None:
    """Chat about text and images; /help lists the commands.

    Images given by -i belong to the first question. At a terminal, a line can be edited, and what was typed
    in earlier chats is there again (kept in HYBRID_HOME, or beside config.toml). From a pipe, every line is a
    question or a command.

    \b
    hybrid chat -i photo.jpg
    printf '%s\\n' "What can you do?" "/image a.png" "What is this?" | hybrid chat --usage
    """
    if "-" in images:
        raise click.UsageError("stdin is where the questions come from; give the image's path")
    if options["logprobs"] is not None and not options["as_object"]:
        raise click.UsageError("--logprobs are part of the JSON output; add --json")
    if options["model"] is None:
        click.echo(NOTICE, err=True)
    from router.cli.signals import pump

    with listening("reading the model") as listener:
        (talk,) = pump(_begin(images, options, listener))
    talk.go_on(_input())


def _begin(images: tuple[str, ...], options: dict[str, Any], listener: Listener) -> Iterator[ChatSession]:
    """The chat, with the backend loaded that the first question will most likely need."""
    from dataclasses import replace

    from router.cli.chat.answer import AnswerPrinter, ListenerRelay, Style
    from router.cli.chat.session import ChatSession, Conversation
    from router.cli.chat.settings import Defaults
    from router.images import open_image
    from router.types import Request

    accepted = image_limits(options)
    opened = [open_image(path, accepted) for path in images]
    conversation = Conversation.begin(options["system"]).shown(*opened)
    backend = None if options["backend"] == "auto" else options["backend"]
    settings = Request((), sampling(options), backend, options["min_pixels"], options["max_pixels"])
    ear = ListenerRelay(listener)
    router = make_router(options, ear.listener)
    answer = router.answer(replace(settings, messages=conversation.asked("").messages))
    answer.chunks.close()  # nothing was computed yet: it has shown that the options hold, and loaded
    check_used(answer.sampling, options)
    style = Style(
        not options["no_stream"],
        options["as_object"],
        options["usage"],
        options["explain"],
        options["timeout"],
    )
    yield ChatSession(
        AnswerPrinter(router, style, ear),
        conversation,
        settings,
        Defaults.read(router.model.folder),
        accepted,
    )


def _input() -> Input:
    """Somebody at a terminal, or a pipe."""
    from router.cli.chat.lines import Lines

    if not sys.stdin.isatty() or not (sys.stdout.isatty() or sys.stderr.isatty()):
        return Lines()
    from prompt_toolkit.utils import is_dumb_terminal

    if is_dumb_terminal():
        return Lines()
    from router.cli.chat.keyboard import Keyboard

    click.echo("/help lists the commands, Ctrl-D leaves", err=True)
    return Keyboard()
