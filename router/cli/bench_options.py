"""The options of ``hybrid bench``, and the values they stand for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import F, option, where_options

if TYPE_CHECKING:
    from router.bench.workloads import Size

SAVED, DRAWN = (".json", ".md", ".csv"), (".png", ".svg", ".pdf")

_NOT_MEASURED = {"output", "save", "plot", "compare", "record"}  # options that change no figure
_FILE = click.Path(path_type=Path, dir_okay=False)


def bench_options(command: F) -> F:
    """All of them."""
    for decorate in reversed(
        [
            option("-m", "--model", metavar="scenes|DIR|ID",
                   help="The embedded model, a checkpoint or export folder, or a hub id."),
            option("--backends", metavar="NAME,..", help="Which to measure; torch,genai,onnx by default."),
            option("-p", "--prompt-tokens", metavar="N,..",
                   help="Lengths of text prompts; 128 and 512, or 1024 where the context is long."),
            option("-n", "--output-tokens", type=click.IntRange(2, 100_000), metavar="N",
                   help="Tokens of every answer; 64, or 32 where the context is short."),
            option("--image-size", metavar="WxH,..", default="448x448", show_default=True,
                   help="Sizes of images in pixels."),
            option("--images", metavar="N,..", default="1", show_default=True,
                   help="How many images a request has; 0 for none."),
            option("-r", "--repeats", type=click.IntRange(1, 1000), default=5, show_default=True,
                   metavar="N", help="How often everything is measured."),
            option("--warmup", type=click.IntRange(0, 100), default=1, show_default=True, metavar="N",
                   help="How often before that, without measuring."),
            option("--starts", type=click.IntRange(1, 100), default=1, show_default=True, metavar="N",
                   help="How often all of that is done, each time in new processes: how fast one is depends "
                   "on where its memory lies."),
            option("--concurrency", metavar="N,..", default="1", show_default=True,
                   help="How many requests at the same time."),
            option("--threads", type=click.IntRange(1, 1024), metavar="N",
                   help="Threads to compute with; all usable cores by default."),
            *where_options(),
            option("--offline", is_flag=True, help="Do not ask the hub."),
            click.option("--url", metavar="URL",
                         help="Measure an OpenAI-compatible server, -m being its name of a model; the key is "
                         "read from HYBRID_API_KEY or OPENAI_API_KEY. With --backends, measure both."),
            click.option("--roofline/--no-roofline", default=True, help="Measure the machine's limits too."),
            click.option("--record/--no-record", default=True,
                         help="Keep the medians for hybrid route and the policy fastest."),
            click.option("-o", "--output", type=click.Choice(["md", "csv", "json"]), default="md",
                         show_default=True, help="What to print."),
            click.option("--save", type=_FILE, metavar="FILE", help="Keep the report as .json, .md or .csv."),
            click.option("--plot", type=_FILE, metavar="FILE",
                         help="Draw it as .png, .svg or .pdf; needs the extra [bench]."),
            click.option("--compare", type=_FILE, metavar="OLD.json",
                         help="Add the ratios to a report that --save kept."),
        ]
    ):  # fmt: skip
        command = decorate(command)
    return command


def numbers(flag: str, text: str, least: int) -> list[int]:
    """Different whole numbers with commas between; click.UsageError names the flag."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part) <= 1_000_000 for part in parts):
        raise click.UsageError(f"{flag} wants numbers from {least} such as 1,2, got '{text}'")
    return list(dict.fromkeys(map(int, parts)))


def sizes(text: str) -> list[Size]:
    """Sizes of images with commas between; click.UsageError says what is wanted."""
    from router.bench.workloads import Size

    found = [re.fullmatch(r"\s*([1-9]\d{0,4})x([1-9]\d{0,4})\s*", part, re.ASCII) for part in text.split(",")]
    if not all(found):
        raise click.UsageError(f"--image-size wants sizes such as 448x448,1024x768, got '{text}'")
    return [Size(int(match[1]), int(match[2])) for match in found if match]


def command_of(context: click.Context) -> str:
    """What was said, whether by flags, environment or file, that the figures depend on."""
    words = ["hybrid", "bench"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        default = context.get_parameter_source(parameter.name) is click.core.ParameterSource.DEFAULT
        if default or parameter.name in _NOT_MEASURED or value is None:
            continue
        flag = max(parameter.opts, key=len)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, shlex.quote(str(value))]
    return " ".join(words)
