"""The options of ``hybrid bench``, and the values their texts stand for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.fields import group, option, options_class
from router.cli.options import RuntimeOptions

if TYPE_CHECKING:
    from router.bench.workloads import Size

SAVED, DRAWN = (".json", ".md", ".csv"), (".png", ".svg", ".pdf")

_NOT_MEASURED = {"output", "save", "plot", "compare", "record"}  # options that change no figure
_FILE = click.Path(path_type=Path, dir_okay=False)


@options_class
class BenchOptions:
    """What is measured, how often, and where the report goes."""

    model: str | None = option(
        "-m",
        "--model",
        metavar="scenes|DIR|ID",
        help="The embedded model, a checkpoint or export folder, or a hub id.",
    )
    backends: str | None = option(
        "--backends", metavar="NAME,..", help="Which to measure; torch,genai,onnx by default."
    )
    prompt_tokens: str | None = option(
        "-p",
        "--prompt-tokens",
        metavar="N,..",
        help="Lengths of text prompts; 128 and 512, or 1024 where the context is long.",
    )
    output_tokens: int | None = option(
        "-n",
        "--output-tokens",
        type=click.IntRange(2, 100_000),
        metavar="N",
        help="Tokens of every answer; 64, or 32 where the context is short.",
    )
    image_size: str = option(
        "--image-size",
        metavar="WxH,..",
        default="448x448",
        show_default=True,
        help="Sizes of images in pixels.",
    )
    images: str = option(
        "--images",
        metavar="N,..",
        default="1",
        show_default=True,
        help="How many images a request has; 0 for none.",
    )
    repeats: int = option(
        "-r",
        "--repeats",
        type=click.IntRange(1, 1000),
        default=5,
        show_default=True,
        metavar="N",
        help="How often everything is measured.",
    )
    warmup: int = option(
        "--warmup",
        type=click.IntRange(0, 100),
        default=1,
        show_default=True,
        metavar="N",
        help="How often before that, without measuring.",
    )
    starts: int = option(
        "--starts",
        type=click.IntRange(1, 100),
        default=1,
        show_default=True,
        metavar="N",
        help="How often all of that is done, each time in new processes: how fast one is depends on where "
        "its memory lies.",
    )
    concurrency: str = option(
        "--concurrency",
        metavar="N,..",
        default="1",
        show_default=True,
        help="How many requests at the same time.",
    )
    runtime: RuntimeOptions = group(
        RuntimeOptions,
        "threads",
        "device",
        "dtype",
        "vision",
        threads="Threads to compute with; all usable cores by default.",
    )
    offline: bool = option("--offline", is_flag=True, help="Do not ask the hub.")
    url: str | None = option(
        "--url",
        environment=False,
        metavar="URL",
        help="Measure an OpenAI-compatible server, -m being its name of a model; the key is read from "
        "HYBRID_API_KEY or OPENAI_API_KEY. With --backends, measure both.",
    )
    roofline: bool = option(
        "--roofline/--no-roofline", environment=False, default=True, help="Measure the machine's limits too."
    )
    record: bool = option(
        "--record/--no-record",
        environment=False,
        default=True,
        help="Keep the medians for hybrid route and the policy fastest.",
    )
    output: str = option(
        "-o",
        "--output",
        environment=False,
        type=click.Choice(["md", "csv", "json"]),
        default="md",
        show_default=True,
        help="What to print.",
    )
    save: Path | None = option(
        "--save", environment=False, type=_FILE, metavar="FILE", help="Keep the report as .json, .md or .csv."
    )
    plot: Path | None = option(
        "--plot",
        environment=False,
        type=_FILE,
        metavar="FILE",
        help="Draw it as .png, .svg or .pdf; needs the extra [bench].",
    )
    compare: Path | None = option(
        "--compare",
        environment=False,
        type=_FILE,
        metavar="OLD.json",
        help="Add the ratios to a report that --save kept.",
    )

    @property
    def only_server(self) -> bool:
        """Whether a server is measured and no backend."""
        return self.url is not None and self.backends is None


def numbers(flag: str, text: str, least: int) -> list[int]:
    """Different whole numbers with commas between; click.UsageError names the flag."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part) <= 1_000_000 for part in parts):
        raise click.UsageError(f"{flag} wants numbers from {least} such as 1,2, got '{text}'")
    return list(dict.fromkeys(map(int, parts)))


def sizes(text: str) -> list[Size]:
    """Sizes of images with commas between; click.UsageError says what is wanted."""
    from router.bench.workloads import Size

    matches = [
        re.fullmatch(r"\s*([1-9]\d{0,4})x([1-9]\d{0,4})\s*", part, re.ASCII) for part in text.split(",")
    ]
    if not all(matches):
        raise click.UsageError(f"--image-size wants sizes such as 448x448,1024x768, got '{text}'")
    return [Size(int(match[1]), int(match[2])) for match in matches if match]


def command_of(context: click.Context) -> str:
    """The command line that gives the same figures, wherever its options came from."""
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
