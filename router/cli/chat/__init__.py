"""``hybrid chat``: one question after the other, each answered with what was said before in mind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from router.cli.fields import option, options_class, takes
from router.cli.options import NOTICE, POSITIVE_SECONDS, RequestOptions
from router.cli.terminal import progress_bar

if TYPE_CHECKING:
    from router.cli.chat.lines import Input
    from router.cli.chat.session import ChatSession
    from router.models import Listener


@options_class
class ChatOptions(RequestOptions):
    """How the first question is asked, how every one is answered, and what is printed."""

    timeout: float | None = option(
        "--timeout", type=POSITIVE_SECONDS, metavar="SECONDS", help="Give up after this long."
    )
    explain: bool = option(
        "--explain", environment=False, is_flag=True, help="Say on stderr which backend answers and why."
    )
    usage: bool = option(
        "--usage", environment=False, is_flag=True, help="Say on stderr what each answer took."
    )
    no_stream: bool = option(
        "--no-stream", environment=False, is_flag=True, help="Print each answer when it is whole."
    )
    as_object: bool = option(
        "--json",
        environment=False,
        is_flag=True,
        help="Print a JSON object, on one line, for each answer.",
    )


@click.command()
@takes(ChatOptions)
def chat(options: ChatOptions) -> None:
    """Chat about text and images; /help lists the commands.

    Images given by -i belong to the first question. At a terminal, a line can be edited, and what was typed
    in earlier chats is there again (kept in HYBRID_HOME, or beside config.toml). From a pipe, every line is a
    question or a command.

    \b
    hybrid chat -i photo.jpg
    printf '%s\\n' "What can you do?" "/image a.png" "What is this?" | hybrid chat --usage
    """
    if "-" in options.conversation.images:
        raise click.UsageError("stdin is where the questions come from; give the image's path")
    if options.sampling.logprobs is not None and not options.as_object:
        raise click.UsageError("--logprobs are part of the JSON output; add --json")
    if options.router.model is None:
        click.echo(NOTICE, err=True)
    from router.cli.signals import iterate_in_thread

    with progress_bar("reading the model") as listener:
        (session,) = iterate_in_thread(_open_session(options, listener))
    session.run(_open_input())


def _open_session(options: ChatOptions, listener: Listener) -> Iterator[ChatSession]:
    """The one session, with the backend loaded that the first question will most likely need."""
    from dataclasses import replace

    from router.cli.chat.answer import AnswerOptions, AnswerPrinter, ListenerRelay
    from router.cli.chat.session import ChatSession, Conversation
    from router.cli.chat.settings import Defaults
    from router.images import open_image
    from router.types import Request

    limits = options.conversation.to_limits()
    images = [open_image(path, limits) for path in options.conversation.images]
    conversation = Conversation.start(options.conversation.system).with_images(*images)
    settings = Request(
        (),
        options.sampling.to_sampling(),
        options.router.named_backend,
        options.conversation.min_pixels,
        options.conversation.max_pixels,
    )
    relay = ListenerRelay(listener)
    router = options.router.make_router(relay.listener)
    answer = router.answer(replace(settings, messages=conversation.with_question("").messages))
    answer.chunks.close()  # nothing was computed yet: it has shown that the options hold, and loaded
    options.sampling.check_used(answer.sampling)
    answer_options = AnswerOptions(
        stream=not options.no_stream,
        as_object=options.as_object,
        usage=options.usage,
        explain=options.explain,
        timeout=options.timeout,
    )
    printer = AnswerPrinter(router, answer_options, relay)
    yield ChatSession(printer, conversation, settings, Defaults.read(router.model.folder), limits)


def _open_input() -> Input:
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
