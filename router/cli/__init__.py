"""The command line: the only place that prints or exits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from router.cli.bench import bench
from router.cli.chat import chat
from router.cli.doctor import doctor
from router.cli.exit_codes import describe, exit_code
from router.cli.export import export
from router.cli.fields import read_defaults
from router.cli.generate import generate
from router.cli.models import models
from router.cli.route import route
from router.cli.serve import serve
from router.cli.verify import verify


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="hybrid-router", prog_name="hybrid", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="HYBRID_DEBUG", help="Show the traceback of an error.")
@click.pass_context
def hybrid(context: click.Context, debug: bool) -> None:
    """Run Qwen3-VL on this machine: text and images, each by the backend that fits.

    Every long option can be set in the environment (HYBRID_MODEL, HYBRID_TEMPERATURE ...) or in config.toml
    (model = "..."); a flag wins over the environment, and that over the file.
    """
    context.default_map = read_defaults(hybrid.commands)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (generate, chat, serve, route, bench, export, verify, models, doctor):
    hybrid.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit with the documented code."""
    if "_HYBRID_COMPLETE" in os.environ:  # a shell asks for completions
        hybrid(prog_name="hybrid")
    signal.signal(signal.SIGTERM, _terminate)
    _leave(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code, with any failure told in one line on stderr."""
    try:
        # click's own main turns a closed pipe into exit code 1 and prints when it is interrupted
        with hybrid.make_context("hybrid", list(arguments)) as context:
            hybrid.invoke(context)
        return 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except SystemExit as leaving:
        return int(leaving.code or 0)
    except BaseException as failure:
        if "--debug" in arguments or os.environ.get("HYBRID_DEBUG"):
            raise
        if line := describe(failure):
            click.echo(f"hybrid: {line}", err=True)
        return exit_code(failure)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _leave(code: int) -> NoReturn:
    """Exit at once: a library may still be computing in its threads, and must not hold the terminal."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as failure:
            code = code or exit_code(failure)
    os._exit(code)
