"""``hybrid doctor``: what this machine can run, and what to do about what it cannot."""

from __future__ import annotations

import json

import click

from router.cli.fields import group, option, options_class, takes
from router.cli.options import POSITIVE_SECONDS, RuntimeOptions
from router.cli.terminal import progress_line, write


@options_class
class DoctorOptions:
    """What the backends are tried with, and how the findings are printed."""

    model: str | None = option(
        "-m",
        "--model",
        metavar="scenes|DIR|ID",
        help="Try the backends with this one; with scenes by default.",
    )
    runtime: RuntimeOptions = group(
        RuntimeOptions,
        "device",
        "dtype",
        "threads",
        dtype="Of PyTorch's weights.",
        threads="Threads to compute with.",
    )
    timeout: float | None = option(
        "--timeout",
        type=POSITIVE_SECONDS,
        metavar="SECONDS",
        help="Give a backend up when it loads or answers for so long; 120 by default.",
    )
    no_run: bool = option(
        "--no-run",
        environment=False,
        is_flag=True,
        help="Load nothing: only tell which backends could be used.",
    )
    as_object: bool = option("--json", environment=False, is_flag=True, help="Print one JSON object.")


@click.command()
@takes(DoctorOptions)
def doctor(options: DoctorOptions) -> None:
    """Tell what this machine can run: its processor and memory, the libraries, the models, every backend.

    Each backend loads the model and gives one token, about a text and about an image, in a process of its
    own; a model that has no export yet gets one, as on first use. Nothing is downloaded. Exit code 5: no
    backend can answer here.
    """
    from backends.base import BackendError
    from router.cli.doctor_page import page
    from router.doctor import LIMIT_SECONDS, examine
    from router.models import find

    limit = LIMIT_SECONDS if options.timeout is None else options.timeout
    with progress_line("looking at this machine") as update:
        model = find(options.model, offline=True)
        runtime = options.runtime.to_runtime()
        report = examine(model, runtime, run=not options.no_run, limit_seconds=limit, on_stage=update)
    write(json.dumps(report.fields(), indent=1) + "\n" if options.as_object else page(report))
    if not report.can_answer:
        raise BackendError("no backend can answer here; beside each it says why")
