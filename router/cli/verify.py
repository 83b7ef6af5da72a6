"""``hybrid verify``: whether a model's export is what was written, and how near it is to PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.fields import group, option, options_class, takes
from router.cli.options import RuntimeOptions
from router.cli.terminal import progress_bar, progress_line, size, write

if TYPE_CHECKING:
    from backends.store import Manifest
    from router.models import Model
    from router.parity import ParityReport


@options_class
class VerifyOptions:
    """What an export is compared with, and how the findings are printed."""

    against: str | None = option(
        "--against",
        environment=False,
        type=click.Choice(["torch"]),
        help="Compare what it computes with this backend too.",
    )
    checkpoint: str | None = option(
        "--checkpoint",
        environment=False,
        metavar="DIR|ID",
        help="What an export was made from, if it cannot be told.",
    )
    runtime: RuntimeOptions = group(
        RuntimeOptions,
        "device",
        "dtype",
        "threads",
        dtype="Of PyTorch's weights.",
        threads="Threads to compute with.",
    )
    offline: bool = option("--offline", is_flag=True, help="Do not ask the hub.")
    as_object: bool = option(
        "--json", environment=False, is_flag=True, help="Print a JSON object for each export."
    )


@click.command()
@click.argument("name", metavar="MODEL")
@takes(VerifyOptions)
def verify(options: VerifyOptions, name: str) -> None:
    """Read every file of MODEL's exports and compare it with the manifest; exit code 4 names what is damaged.

    MODEL is an export, or a checkpoint whose exports in the cache are meant; if it has none yet, one is made.
    With --against, built-in prompts and images go through both backends: image features, scores, and the
    tokens they choose are compared, and exit code 4 says where they are further apart than the export's
    precision explains. PyTorch computes in fp32 where the free memory holds it, else in bf16, or as --dtype
    says; the report tells which it was.
    """
    from backends.base import BackendError

    if options.checkpoint is not None and options.against is None:
        raise click.UsageError("--checkpoint is read to compare with; add --against torch")
    problems: list[str] = []
    for folder in _exports(name, options.offline):
        damages = _damages(folder) or _lacks(folder)
        problems += damages
        if not damages:
            problems += examine(folder, options.checkpoint or name, options)
    if problems:
        raise BackendError("; ".join(problems), code="model_invalid")


def _damages(folder: Path) -> list[str]:
    from backends.store import verify_folder as damages_of

    with progress_bar() as listener:
        return [
            f"{folder / damage.file} {damage.problem}" for damage in damages_of(folder, listener.progress)
        ]


def _lacks(folder: Path) -> list[str]:
    """Why a whole export could not answer, since its checkpoint lacked what that needs."""
    from backends.base import BackendError
    from router.prompt import PromptBuilder

    try:
        PromptBuilder.read(folder)
    except BackendError as error:
        return [str(error)]
    return []


def examine(folder: Path, source: str, options: VerifyOptions) -> list[str]:
    """Print what a whole export of ``source`` is; return where it is too far from the reference."""
    from backends.store import Manifest
    from router.parity import BARS
    from router.parity import verify as compare

    manifest = Manifest.read(folder)
    against, report = options.against, None
    if against is not None:
        checkpoint = _source(source, folder, manifest, options.offline).folder
        with progress_line(f"{against}: loading") as update:
            report = compare(checkpoint, folder, against, options.runtime.to_runtime(), update)
    to_text = _as_json if options.as_object else _as_text
    write(to_text(folder, manifest, against, report))
    if report is None:
        return []
    return [f"{folder}: {failure}" for failure in BARS[manifest.recipe.precision].failures(report)]


def _source(name: str, folder: Path, manifest: Manifest, offline: bool) -> Model:
    """The checkpoint of an export: what ``name`` is, unless that is the export itself."""
    from backends.base import RequestError
    from router.models import find

    with progress_bar() as listener:
        model = find(name, listener, offline=offline)
        if not model.is_export:
            return model
        try:
            model = find(manifest.source.name, listener, offline=offline)
        except RequestError:
            raise RequestError(
                f"{folder} was made from {manifest.source.name}, not found here; add --checkpoint DIR",
                code="model_not_found",
                param="checkpoint",
            ) from None
    return model


def _as_text(folder: Path, manifest: Manifest, against: str | None, report: ParityReport | None) -> str:
    lines = [f"{folder}: {len(manifest.files)} files, {size(manifest.size)}, all as exported"]
    if report is not None:
        count = f"{len(report.agreeing)} prompts, {report.steps} tokens"
        lines.append(f"against {against} in {report.reference_dtype}, {count}:")
        lines += [
            f"  {distance.stage:<20} cosine {distance.cosine:.6f}, worst row {distance.worst_row:.6f}, "
            f"relative error {distance.relative_error:.2e}"
            for distance in report.distances
        ]
        agreeing = " ".join(map(str, report.agreeing))
        lines.append(
            f"  top-1 agreement {report.top1:.1%}, "
            f"KL divergence of the worst prompt {report.divergence:.2e} nats"
        )
        lines.append(f"  greedy tokens before the first different one: {agreeing}")
    return "\n".join(lines) + "\n"


def _as_json(folder: Path, manifest: Manifest, against: str | None, report: ParityReport | None) -> str:
    fields = {
        "folder": str(folder),
        "files": len(manifest.files),
        "bytes": manifest.size,
        "against": against,
        "report": report and asdict(report),
    }
    return json.dumps(fields) + "\n"


def _exports(name: str, offline: bool) -> Iterator[Path]:
    """The folders that ``name`` means; a checkpoint without an export gets one, as on first use."""
    from router.models import ensure_export, exports_of, find, find_folder

    if (folder := find_folder(name)) is not None and (folder / "manifest.json").exists():
        yield folder  # also one that `find` would refuse as damaged
        return
    with progress_bar() as listener:
        model = find(name, listener, offline=offline)
        folders = exports_of(model) or [ensure_export(model, listener=listener)]
    yield from folders
