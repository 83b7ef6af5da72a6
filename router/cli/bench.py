"""``hybrid bench``: how fast each backend is with a model on this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from router.cli.bench_options import DRAWN, SAVED, BenchOptions, command_of, numbers, sizes
from router.cli.fields import takes
from router.cli.terminal import progress_bar, write

if TYPE_CHECKING:
    from router.bench.contenders import Contender
    from router.bench.report import BenchReport, Setting
    from router.bench.runner import Bench, BenchPlan
    from router.models import Listener, Model


@click.command()
@takes(BenchOptions)
@click.pass_context
def bench(context: click.Context, options: BenchOptions) -> None:
    """Measure how fast each backend answers on this machine, and print a report.

    All backends get the same requests in turns, each in a process of its own: texts of several lengths,
    images, follow-up questions. What cannot run says why. Figures of a busy machine are marked as such.

    \b
    hybrid bench -m scenes
    hybrid bench -m Qwen/Qwen3-VL-2B-Instruct --save now.json --plot now.png
    hybrid bench -m Qwen/Qwen3-VL-2B-Instruct --compare now.json
    hybrid bench --url http://127.0.0.1:8000
    """
    from router.bench.runner import Bench

    options = _checked(context, options)
    previous = _check_files(options)
    interrupted = False
    with progress_bar("reading the model") as listener:
        model = _model(options, listener)
        plan = _plan(model, options, command_of(context), listener)
    with progress_bar("starting", steps=True) as listener:
        bench = Bench(plan, listener)
        try:
            bench.run()
        except KeyboardInterrupt:
            interrupted = True
    report = bench.report()
    if interrupted:
        if report.rows:
            write(_text(report, options.output, previous))
        raise KeyboardInterrupt
    _print(report, options, previous)
    _record(report, model, options)
    _check_measured(bench)


def _checked(context: click.Context, options: BenchOptions) -> BenchOptions:
    """Refuse what says how to compute where only a server does; what is set for backends is passed over."""
    if not options.only_server:
        return options
    given = [
        name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    for name in ("threads", "device", "dtype", "vision", "offline", "roofline"):
        if name in given and context.params[name]:
            raise click.UsageError(f"--{name} is for backends here, and --url measures a server; drop one")
    return options if "model" in given else replace(options, model=None)


def _check_files(options: BenchOptions) -> dict[str, Any] | None:
    """Refuse what would fail after minutes of measuring; return the report to compare with."""
    from router.bench import comparison, plot

    for name, file, endings in (("save", options.save, SAVED), ("plot", options.plot, DRAWN)):
        if file is None:
            continue
        if file.suffix not in endings:
            raise click.UsageError(f"--{name} wants a name that ends with {', '.join(endings)}, got '{file}'")
        if not file.absolute().parent.is_dir():
            raise click.UsageError(f"--{name}: there is no folder {file.absolute().parent}")
    if options.plot is not None:
        plot.check()
    if options.compare is None:
        return None
    if options.output == "csv":
        raise click.UsageError("--compare adds a section that CSV cannot hold; choose -o md or -o json")
    return comparison.read(options.compare)


def _model(options: BenchOptions, listener: Listener) -> Model | None:
    """The model that is measured here; None where only a server is."""
    if options.only_server:
        return None
    from router.models import find

    return find(options.model, listener, offline=options.offline)


def _plan(model: Model | None, options: BenchOptions, command: str, listener: Listener) -> BenchPlan:
    from router.bench.runner import BenchPlan
    from router.bench.workloads import Writer, check_room, default_answer, default_prompts, workloads
    from router.prompt import PromptBuilder

    builder = None if model is None else PromptBuilder.read(model.folder)
    context = 4096 if builder is None else builder.config.text.context
    prompts = options.prompt_tokens
    chosen = workloads(
        default_prompts(context) if prompts is None else numbers("--prompt-tokens", prompts, least=1),
        options.output_tokens or default_answer(context),
        sizes(options.image_size),
        numbers("--images", options.images, least=0),
        numbers("--concurrency", options.concurrency, least=1),
    )
    if builder is not None:
        check_room(chosen, context)
    return BenchPlan(
        setting=_setting(model, options, command),
        contenders=_contenders(model, options, listener),
        workloads=chosen,
        writer=Writer(builder),
        config=None if builder is None else builder.config,
        roofline=options.roofline and options.runtime.device != "cuda" and model is not None,
    )


def _setting(model: Model | None, options: BenchOptions, command: str) -> Setting:
    from backends.machine import usable_cores
    from router.bench.report import Setting

    return Setting(
        model=model.name if model is not None else options.model or options.url or "",
        revision=None if model is None else model.revision,
        command=command,
        threads=options.runtime.threads or usable_cores(),
        repeats=options.repeats,
        warmup=options.warmup,
        starts=options.starts,
        device=options.runtime.device,
        dtype=options.runtime.dtype,
        vision=options.runtime.vision,
    )


def _contenders(model: Model | None, options: BenchOptions, listener: Listener) -> tuple[Contender, ...]:
    from router.bench import contenders

    chosen: list[Contender] = []
    if model is not None:
        named = options.backends and [name.strip() for name in options.backends.split(",")]
        contenders.check_names(named or ())
        for name in dict.fromkeys(named or contenders.DEFAULT_BACKENDS):
            chosen.append(contenders.contender(name, model, options.runtime.to_runtime(), listener))
    if options.url is not None:
        chosen.append(contenders.server(options.url, options.model if model is None else None))
    return tuple(chosen)


def _print(report: BenchReport, options: BenchOptions, previous: dict[str, Any] | None) -> None:
    """Print the report, and write the files that were asked for."""
    write(_text(report, options.output, previous))
    if options.save is not None:
        options.save.write_text(_text(report, options.save.suffix[1:], previous), "utf-8")
    if options.plot is not None:
        from router.bench.plot import plot

        plot(report, options.plot)


def _text(report: BenchReport, form: str, previous: dict[str, Any] | None) -> str:
    from router.bench.comparison import compare
    from router.bench.report import as_csv, as_json
    from router.bench.tables import markdown

    compared = None if previous is None else compare(report, previous)
    match form:
        case "json":
            return as_json(report, None if compared is None else compared.fields())
        case "csv":
            return as_csv(report)
    return markdown(report) + ("" if compared is None else "\n" + compared.markdown())


def _record(report: BenchReport, model: Model | None, options: BenchOptions) -> None:
    """Let policies and estimates know how fast the backends are."""
    from router.bench.report import speeds
    from router.estimates import record_speeds

    if options.record and model is not None and (measured := speeds(report)):
        record_speeds(model, options.runtime.to_runtime(), measured)


def _check_measured(bench: Bench) -> None:
    """BackendError: nothing at all could be measured."""
    from backends.base import BackendError

    if not any(outcome.measurement is not None for outcome in bench.outcomes):
        reasons = "; ".join(f"{name}: {problem}" for name, problem in bench.problems().items())
        raise BackendError(f"nothing could be measured ({reasons})", code="backend_unavailable")
