"""``hybrid bench``: how fast each backend is with a model on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from router.cli.bench_options import DRAWN, SAVED, bench_options, command_of, numbers, sizes
from router.cli.options import runtime
from router.cli.terminal import listening, write

if TYPE_CHECKING:
    from router.bench.contenders import Contender
    from router.bench.report import BenchReport, Setting
    from router.bench.runner import Bench, BenchPlan
    from router.models import Listener, Model


@click.command()
@bench_options
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:
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

    _check_together(context, options)
    old = _check_files(options)
    interrupted = False
    with listening("reading the model") as listener:
        model = _model(options, listener)
        plan = _plan(model, options, command_of(context), listener)
    with listening("starting", counted=True) as listener:
        found = Bench(plan, listener)
        try:
            found.run()
        except KeyboardInterrupt:
            interrupted = True
    report = found.report()
    if interrupted:
        if report.rows:
            write(_text(report, options["output"], old))
        raise KeyboardInterrupt
    _show(report, options, old)
    _keep(report, model, options)
    _check_any(found)


def _check_together(context: click.Context, options: dict[str, Any]) -> None:
    """Refuse what says how to compute where only a server does; what is set for backends is passed over."""
    if options["url"] is None or options["backends"] is not None:
        return
    said = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if "model" not in said:
        options["model"] = None
    for name in ("threads", "device", "dtype", "vision", "offline", "roofline"):
        if name in said and options[name]:
            raise click.UsageError(f"--{name} is for backends here, and --url measures a server; drop one")


def _check_files(options: dict[str, Any]) -> dict[str, Any] | None:
    """Refuse what would fail after minutes of measuring; return the report to compare with."""
    from router.bench import comparison, plot

    for name, endings in (("save", SAVED), ("plot", DRAWN)):
        file: Path | None = options[name]
        if file is None:
            continue
        if file.suffix not in endings:
            raise click.UsageError(f"--{name} wants a name that ends with {', '.join(endings)}, got '{file}'")
        if not file.absolute().parent.is_dir():
            raise click.UsageError(f"--{name}: there is no folder {file.absolute().parent}")
    if options["plot"] is not None:
        plot.check()
    if options["compare"] is None:
        return None
    if options["output"] == "csv":
        raise click.UsageError("--compare adds a section that CSV cannot hold; choose -o md or -o json")
    return comparison.read(options["compare"])


def _model(options: dict[str, Any], listener: Listener) -> Model | None:
    """The model that is measured here; None where only a server is."""
    if options["url"] is not None and options["backends"] is None:
        return None
    from router.models import find

    return find(options["model"], listener, offline=options["offline"])


def _plan(model: Model | None, options: dict[str, Any], command: str, listener: Listener) -> BenchPlan:
    from router.bench.runner import BenchPlan
    from router.bench.workloads import Writer, check_room, default_answer, default_prompts, workloads
    from router.prompt import PromptBuilder

    builder = None if model is None else PromptBuilder.read(model.folder)
    context = 4096 if builder is None else builder.config.text.context
    prompts = options["prompt_tokens"]
    chosen = workloads(
        default_prompts(context) if prompts is None else numbers("--prompt-tokens", prompts, least=1),
        options["output_tokens"] or default_answer(context),
        sizes(options["image_size"]),
        numbers("--images", options["images"], least=0),
        numbers("--concurrency", options["concurrency"], least=1),
    )
    if builder is not None:
        check_room(chosen, context)
    return BenchPlan(
        setting=_setting(model, options, command),
        contenders=_contenders(model, options, listener),
        workloads=chosen,
        writer=Writer(builder),
        config=None if builder is None else builder.config,
        roofline=options["roofline"] and options["device"] != "cuda" and model is not None,
    )


def _setting(model: Model | None, options: dict[str, Any], command: str) -> Setting:
    from backends.machine import usable_cores
    from router.bench.report import Setting

    return Setting(
        model=model.name if model is not None else options["model"] or options["url"],
        revision=None if model is None else model.revision,
        command=command,
        threads=options["threads"] or usable_cores(),
        **{name: options[name] for name in ("repeats", "warmup", "starts", "device", "dtype", "vision")},
    )


def _contenders(model: Model | None, options: dict[str, Any], listener: Listener) -> tuple[Contender, ...]:
    from router.bench import contenders

    found: list[Contender] = []
    if model is not None:
        named = options["backends"] and [name.strip() for name in options["backends"].split(",")]
        contenders.check_names(named or ())
        for name in dict.fromkeys(named or contenders.DEFAULT):
            found.append(contenders.contender(name, model, runtime(options), listener))
    if options["url"] is not None:
        found.append(contenders.server(options["url"], options["model"] if model is None else None))
    return tuple(found)


def _show(report: BenchReport, options: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Print the report, and write the files that were asked for."""
    write(_text(report, options["output"], old))
    if options["save"] is not None:
        options["save"].write_text(_text(report, options["save"].suffix[1:], old), "utf-8")
    if options["plot"] is not None:
        from router.bench.plot import plot

        plot(report, options["plot"])


def _text(report: BenchReport, form: str, old: dict[str, Any] | None) -> str:
    from router.bench.comparison import compare
    from router.bench.files import as_csv, as_json
    from router.bench.tables import markdown

    compared = None if old is None else compare(report, old)
    match form:
        case "json":
            return as_json(report, None if compared is None else compared.fields())
        case "csv":
            return as_csv(report)
    return markdown(report) + ("" if compared is None else "\n" + compared.markdown())


def _keep(report: BenchReport, model: Model | None, options: dict[str, Any]) -> None:
    """Let policies and estimates know."""
    from router.bench.report import speeds
    from router.estimates import record_speeds

    if options["record"] and model is not None and (found := speeds(report)):
        record_speeds(model, runtime(options), found)


def _check_any(found: Bench) -> None:
    """BackendError: nothing at all could be measured."""
    from backends.base import BackendError

    if not any(outcome.turn is not None for outcome in found.outcomes):
        reasons = "; ".join(f"{name}: {problem}" for name, problem in found.problems().items())
        raise BackendError(f"nothing could be measured ({reasons})", code="backend_unavailable")
