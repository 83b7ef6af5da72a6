"""hybrid's backends and what people would use instead, with one checkpoint and the same requests, in turns.

    pip install -r benchmarks/peers/requirements.txt
    python -m benchmarks.peers -m ./Qwen3-VL-2B-Instruct --save all.json --plot all.png --markdown all.md
    python -m benchmarks.peers -m ./Qwen3-VL-2B-Instruct --peers hybrid-onnx,llama.cpp

A name stands for the peer that has it, or for all that begin with it. Every peer is a process that holds
its own model: where memory is short, measure some of them at a time. Conversions take minutes and gigabytes,
once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import router.bench.plot as plotting
from backends.base import BackendError, RequestError
from backends.machine import usable_cores
from benchmarks.peers import enter
from benchmarks.peers.drawing import draw
from benchmarks.peers.known import chosen, peers, versions
from benchmarks.peers.table import markdown
from router.bench.report import BenchReport, Setting, as_json
from router.bench.runner import Bench, BenchPlan
from router.bench.workloads import Size, Workload, Writer, check_room, workloads
from router.cli.terminal import progress_bar
from router.models import Listener, Model, find
from router.prompt import PromptBuilder


def main() -> None:
    """Measure what was asked for, and print the table."""
    options = _parser().parse_args()
    try:
        if options.plot is not None:
            plotting.check()
        report = _measured(options)
    except (RequestError, BackendError) as error:
        sys.exit(f"benchmarks.peers: {error}")
    print(markdown(report), end="")
    if options.markdown is not None:
        options.markdown.write_text(markdown(report), "utf-8")
    if options.save is not None:
        options.save.write_text(as_json(report), "utf-8")
    if options.plot is not None:
        draw(report, options.plot)


def _parser() -> argparse.ArgumentParser:
    text = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=text)
    add = parser.add_argument
    add("-m", "--model", required=True, metavar="DIR", help="a Qwen3-VL checkpoint")
    add("--peers", type=_names, metavar="NAME,..", help="which to measure, by name or by how names begin")
    add("--work", type=Path, metavar="DIR", help="for converted models; ./peers/<model> by default")
    add("-p", "--prompt-tokens", type=_numbers, default=(128, 1024), metavar="N,..")
    add("-n", "--output-tokens", type=_least(2), default=64, metavar="N", help="of every answer")
    add("--image-size", type=_sizes, default=(Size(448, 448), Size(1024, 1024)), metavar="WxH,..")
    add("-r", "--repeats", type=_least(1), default=5, metavar="N")
    add("--warmup", type=_least(0), default=1, metavar="N")
    add("--starts", type=_least(1), default=1, metavar="N", help="how often all that, in new processes")
    add("--threads", type=_least(1), default=usable_cores(), metavar="N")
    add("--follow-ups", action="store_true", help="measure second questions too")
    add("--save", type=_file, metavar="FILE.json", help="everything that was measured")
    add("--plot", type=_file, metavar="FILE.png")
    add("--markdown", type=_file, metavar="FILE.md", help="the table that is printed")
    return parser


def _measured(options: argparse.Namespace) -> BenchReport:
    """Convert, load and measure; Ctrl-C ends with what was found so far."""
    with progress_bar("reading the model") as listener:
        plan = _plan(find(options.model, listener), options, listener)
    with progress_bar("starting", steps=True) as listener:
        bench = Bench(plan, listener)
        try:
            bench.run()
        except KeyboardInterrupt:
            listener.notice("stopped; this is what was measured")
    report = bench.report()
    return replace(report, versions={**report.versions, **versions()})


def _plan(model: Model, options: argparse.Namespace, listener: Listener) -> BenchPlan:
    if model.is_export:
        raise RequestError(f"{model.folder} is an export; give the checkpoint, which every peer converts")
    wanted = peers() if options.peers is None else chosen(peers(), options.peers)
    builder = PromptBuilder.read(model.folder)
    chosen_workloads = _workloads(options)
    check_room(chosen_workloads, builder.config.text.context)
    work = (options.work or Path("peers") / model.name).resolve()
    work.mkdir(parents=True, exist_ok=True)
    return BenchPlan(
        setting=_setting(model, options),
        contenders=tuple(enter(peer, model.folder, work, options.threads, listener) for peer in wanted),
        workloads=chosen_workloads,
        writer=Writer(builder),
        config=builder.config,
        roofline=False,
    )


def _workloads(options: argparse.Namespace) -> tuple[Workload, ...]:
    found = workloads(options.prompt_tokens, options.output_tokens, options.image_size, (1,), ())
    return tuple(each for each in found if options.follow_ups or not each.follow_up)


def _setting(model: Model, options: argparse.Namespace) -> Setting:
    return Setting(
        model=model.name,
        revision=model.revision,
        command=shlex.join(["python", "-m", "benchmarks.peers", *_telling(sys.argv[1:])]),
        threads=options.threads,
        repeats=options.repeats,
        warmup=options.warmup,
        starts=options.starts,
        device="cpu",
        dtype="auto",
        vision="onnx",
    )


def _telling(words: Sequence[str]) -> list[str]:
    """The command without what changes no figure."""
    kept = list(words)
    for name in ("--save", "--plot", "--markdown", "--work"):
        for place in [number for number, word in enumerate(kept) if word == name][::-1]:
            del kept[place : place + 2]
    return kept


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(_least(1), text.split(",")))


def _least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got '{text}'")
        return int(text)

    return whole


def _sizes(text: str) -> tuple[Size, ...]:
    sides = [size.split("x") for size in text.split(",")]
    if any(len(pair) != 2 for pair in sides):
        raise argparse.ArgumentTypeError(f"must be WxH,.. such as 448x448, got '{text}'")
    return tuple(Size(*map(_least(1), pair)) for pair in sides)


def _file(text: str) -> Path:
    """A file that can be written, before minutes of measuring."""
    file = Path(text)
    if not file.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.absolute().parent}")
    return file


if __name__ == "__main__":
    main()
