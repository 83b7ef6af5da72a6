"""``hybrid bench``: how fast each backend is with a model on this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import option, runtime
from router.cli.output import write
from router.cli.progress import listening

if TYPE_CHECKING:
    from router.bench.bench import Bench, Plan
    from router.bench.contenders import Contender
    from router.bench.report import Report, Setting
    from router.bench.workloads import Size
    from router.models import Listener, Model

SAVED, DRAWN = (".json", ".md", ".csv"), (".png", ".svg", ".pdf")
_NOT_MEASURED = {"output", "save", "plot", "compare", "record"}  # options that change no figure


@click.command()
@option(
    "-m", "--model", metavar="scenes|DIR|ID", help="The embedded model, a checkpoint, an export, a hub id."
)
@option("--backends", metavar="NAME,..", help="Which are measured; torch,genai,onnx by default.")
@option("-p", "--prompt-tokens", metavar="N,..", help="Lengths of text prompts; by the model's context.")
@option(
    "-n",
    "--max-tokens",
    type=click.IntRange(2, 100_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Tokens of every answer.",
)
@option("--image-size", metavar="WxH,..", default="448x448", show_default=True, help="Sizes of pictures.")
@option(
    "--images",
    metavar="N,..",
    default="1",
    show_default=True,
    help="Numbers of pictures in a request; 0 for none.",
)
@option(
    "-r",
    "--repeats",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="How often each is measured.",
)
@option(
    "--warmup",
    type=click.IntRange(0, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="How often before that, unmeasured.",
)
@option(
    "--concurrency",
    metavar="N,..",
    default="1",
    show_default=True,
    help="Numbers of requests at the same time.",
)
@option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads; all usable cores by default.")
@option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@option(
    "--dtype",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    help="Number format of the torch backend.",
)
@option(
    "--vision",
    type=click.Choice(["onnx", "torch"]),
    default="onnx",
    help="What encodes pictures for the onnx backend.",
)
@option("--offline", is_flag=True, help="Do not ask the hub.")
@click.option(
    "--url",
    metavar="URL",
    help="Measure an OpenAI-compatible server; -m then names its model. "
    "Its key comes from HYBRID_API_KEY or OPENAI_API_KEY.",
)
@click.option("--roofline/--no-roofline", default=True, help="Measure the machine's own limits too.")
@click.option("--record/--no-record", default=True, help="Keep the medians for hybrid route and estimates.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["md", "csv", "json"]),
    default="md",
    show_default=True,
    help="What is printed.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F",
    help="Keep the report too: .json, .md or .csv.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F",
    help="Draw it: .png, .svg or .pdf; needs the extra [bench].",
)
@click.option("--compare", type=click.Path(path_type=Path, dir_okay=False), metavar="OLD.json",
              help="Add the ratios to a report that --save kept.")  # fmt: skip
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:
    """Measure how fast each backend answers on this machine, and print a report.

    All backends get the same requests in turns, each in a process of its own: texts of several lengths,
    pictures, follow-up questions. What cannot run says why. Figures of a busy machine are marked as such.

    \b
    hybrid bench -m scenes
    hybrid bench -m Qwen/Qwen3-VL-2B-Instruct --save now.json --plot now.png
    hybrid bench -m Qwen/Qwen3-VL-2B-Instruct --compare now.json
    hybrid bench --url http://127.0.0.1:8000
    """
    old = _check_files(options)
    with listening("reading the model", counted=True) as listener:
        model = _model(options, listener)
        plan = _plan(model, options, _command(context), listener)
        found = _bench(plan, listener)
        try:
            found.run()
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
    report = found.report()
    if found.outcomes or not interrupted:
        _show(report, options, old)
    if interrupted:
        raise KeyboardInterrupt
    _keep(report, model, options)
    _check_any(found)


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


def _plan(model: Model | None, options: dict[str, Any], command: str, listener: Listener) -> Plan:
    from router.bench.bench import Plan
    from router.bench.prompts import Writer, check_room
    from router.bench.workloads import default_prompts, workloads
    from router.prompt import PromptBuilder

    builder = None if model is None else PromptBuilder.read(model.folder)
    context = 4096 if builder is None else builder.config.text.context
    prompts = options["prompt_tokens"]
    chosen = workloads(
        default_prompts(context) if prompts is None else _numbers("--prompt-tokens", prompts, least=1),
        options["max_tokens"],
        _sizes(options["image_size"]),
        _numbers("--images", options["images"], least=0),
        _numbers("--concurrency", options["concurrency"], least=1),
    )
    if builder is not None:
        check_room(chosen, context)
    return Plan(
        setting=_setting(model, options, command),
        contenders=_contenders(model, options, listener),
        workloads=chosen,
        writer=Writer(builder),
        config=None if builder is None else builder.config,
        roofline=options["roofline"] and options["device"] != "cuda" and model is not None,
    )


def _setting(model: Model | None, options: dict[str, Any], command: str) -> Setting:
    from backends.ort.threads import usable_cores
    from router.bench.report import Setting

    return Setting(
        model=model.name if model is not None else options["model"] or options["url"],
        revision=None if model is None else model.revision,
        command=command,
        threads=options["threads"] or usable_cores(),
        **{name: options[name] for name in ("repeats", "warmup", "device", "dtype", "vision")},
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


def _bench(plan: Plan, listener: Listener) -> Bench:
    from router.bench.bench import Bench

    return Bench(plan, listener)


def _show(report: Report, options: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Print the report, and write the files that were asked for."""
    write(_text(report, options["output"], old))
    if options["save"] is not None:
        options["save"].write_text(_text(report, options["save"].suffix[1:], old), "utf-8")
    if options["plot"] is not None:
        from router.bench.plot import plot

        plot(report, options["plot"])


def _text(report: Report, form: str, old: dict[str, Any] | None) -> str:
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


def _keep(report: Report, model: Model | None, options: dict[str, Any]) -> None:
    """Let policies and estimates know."""
    from router.bench.recording import speeds
    from router.speeds import record_speeds

    if options["record"] and model is not None and (found := speeds(report)):
        record_speeds(model, runtime(options), found)


def _check_any(found: Bench) -> None:
    """BackendError: nothing at all could be measured."""
    from backends.base import BackendError

    if not any(outcome.turn is not None for outcome in found.outcomes):
        reasons = "; ".join(f"{name}: {problem}" for name, problem in found.problems().items())
        raise BackendError(f"nothing could be measured ({reasons})", code="backend_unavailable")


def _command(context: click.Context) -> str:
    """What was said, whether by flags, environment or file, that the figures depend on."""
    words = ["hybrid", "bench"]
    for parameter in context.command.params:
        name, value = parameter.name, context.params.get(parameter.name or "")
        said = (
            name is not None and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        )
        if not said or name in _NOT_MEASURED or value is None:
            continue
        flag = max(parameter.opts, key=len)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, shlex.quote(str(value))]
    return " ".join(words)


def _numbers(name: str, text: str, least: int) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part) <= 1_000_000 for part in parts):
        raise click.UsageError(f"{name} wants numbers from {least} such as 128,512, got '{text}'")
    return list(dict.fromkeys(map(int, parts)))


def _sizes(text: str) -> Sequence[Size]:
    from router.bench.workloads import Size

    found = [re.fullmatch(r"\s*([1-9]\d{0,4})x([1-9]\d{0,4})\s*", part, re.ASCII) for part in text.split(",")]
    if not all(found):
        raise click.UsageError(f"--image-size wants sizes such as 448x448,1024x768, got '{text}'")
    return [Size(int(match[1]), int(match[2])) for match in found if match]
