"""``hybrid export``: a checkpoint becomes ONNX graphs that run without PyTorch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.fields import option, options_class, takes
from router.cli.terminal import progress_bar, size, write
from router.cli.verify import VerifyOptions, examine

if TYPE_CHECKING:
    from backends.store import (
        Manifest,
        MatrixError,
        Precision,
        PrefillPrecision,
        Recipe,
        RecipeName,
        VisionPrecision,
    )


@options_class
class ExportOptions:
    """How matrices are rounded, and what is done about an export that is there."""

    precision: Precision = option(
        "--precision",
        type=click.Choice(["int4", "int8", "fp32"]),
        default="int4",
        show_default=True,
        help="Of the language model's matrices.",
    )
    recipe: RecipeName = option(
        "--recipe",
        type=click.Choice(["faithful", "fast"]),
        default="faithful",
        show_default=True,
        help="How INT4 is rounded: no worse than Q4_0, or for speed.",
    )
    vision_precision: VisionPrecision | None = option(
        "--vision-precision",
        type=click.Choice(["int8", "w8", "fp32"]),
        help="Of the vision tower: int8, 8-bit weights only, or float32.",
    )
    prefill_precision: PrefillPrecision | None = option(
        "--prefill-precision",
        type=click.Choice(["int8"]),
        help="Matrices of 8 bits too, by which the onnx backend reads long prompts faster; twice the disk.",
    )
    block_size: int | None = option(
        "--block-size", type=int, metavar="N", help="Values that share a scale: 16, 32, 64, 128 or 256."
    )
    symmetric: bool | None = option(
        "--symmetric/--asymmetric",
        default=None,
        help="Without zero points (where it is fast or calibrated) or with them (elsewhere).",
    )
    search: bool = option(
        "--search/--no-search", default=True, help="Choose scales that keep the error least."
    )
    calibrate: bool = option(
        "--calibrate/--no-calibrate",
        default=False,
        help="Round each layer by what goes into it, on built-in prompts: nearer, and slower to export.",
    )
    head_bits: str | None = option(
        "--head-bits", type=click.Choice(["4", "6", "8"]), help="Of the matrix that gives the scores."
    )
    shortlist: int | None = option(
        "--shortlist",
        type=int,
        metavar="N",
        help="How many of the best scores are computed with all bits of the head, after 4 found them; "
        "0: all.",
    )
    int8_layers: str = option(
        "--int8-layers", metavar="N,N..", default="", help="Decoder layers kept at 8 bits."
    )
    accuracy_level: str = option(
        "--accuracy-level",
        type=click.Choice(["0", "1", "4"]),
        default="4",
        show_default=True,
        help="What products are computed in: 4 int8, 0 and 1 float32.",
    )
    verify: bool = option(
        "--verify/--no-verify",
        environment=False,
        default=False,
        help="Compare with PyTorch when it is done, as hybrid verify does.",
    )
    force: bool = option(
        "--force",
        environment=False,
        is_flag=True,
        help="Make it anew, and replace what is at OUT if it is an export.",
    )
    no_wait: bool = option(
        "--no-wait", environment=False, is_flag=True, help="Fail when another process is exporting the same."
    )
    offline: bool = option("--offline", is_flag=True, help="Do not ask the hub.")


@click.command()
@click.argument("source")
@click.argument("out", required=False, type=click.Path(path_type=Path))
@takes(ExportOptions)
def export(options: ExportOptions, source: str, out: Path | None) -> None:
    """Export SOURCE (scenes, a checkpoint folder, or a hub id) for the onnx backend.

    The export goes to the cache, where every command finds it, or to the new folder OUT. Its path is printed.

    \b
    hybrid export Qwen/Qwen3-VL-2B-Instruct
    hybrid export ./qwen3-vl-2b ./qwen3-vl-2b-fast --recipe fast
    """
    from backends.base import BackendError
    from backends.store import Manifest
    from router.models import export_place, export_to, find

    recipe = _recipe(options)
    started = time.monotonic()
    with progress_bar() as listener:
        model = find(source, listener, offline=options.offline)
        target = export_place(model, recipe) if out is None else out
        is_new = export_to(target, model, recipe, listener, force=options.force, wait=not options.no_wait)
    manifest = Manifest.read(target)
    outcome = f"exported in {time.monotonic() - started:.1f} s" if is_new else "exported before"
    click.echo(f"{size(manifest.size)}, {outcome}", err=True)
    for line in worst_errors(manifest):
        click.echo(line, err=True)
    write(f"{target}\n")
    if options.verify and (
        problems := examine(target, source, VerifyOptions("torch", offline=options.offline))
    ):
        raise BackendError("; ".join(problems), code="model_invalid")


def worst_errors(manifest: Manifest) -> Iterator[str]:
    """For each kind of matrix how many were rounded, and how far the worst of them moved."""
    kinds: dict[str, list[MatrixError]] = {}
    for matrix in manifest.matrices:
        kinds.setdefault(_kind(matrix), []).append(matrix)
    for kind, matrices in kinds.items():
        worst = max(matrices, key=lambda matrix: matrix.error)
        count = f"{len(matrices)} matrices" if len(matrices) > 1 else "1 matrix"
        yield f"{kind}: {count}, relative error at most {worst.error:.4f} ({worst.name})"
    yield from _output_errors(manifest)


def _output_errors(manifest: Manifest) -> Iterator[str]:
    """What calibration gave: how far the outputs of the layers' matrices are off in the mean."""
    pairs = [
        (matrix.output_error, matrix.plain_output_error)
        for matrix in manifest.matrices
        if matrix.output_error is not None and matrix.plain_output_error is not None
    ]
    if pairs:
        calibrated, plain = (sum(errors) / len(pairs) for errors in zip(*pairs, strict=True))
        yield (
            f"calibrated: outputs of these matrices are off by {calibrated:.4f} in the mean, "
            f"by {plain:.4f} if rounded plainly"
        )


def _kind(matrix: MatrixError) -> str:
    from backends.store import SEARCH

    part = "vision" if "visual." in matrix.name else "language"
    if matrix.name.startswith("prefill."):
        part = "reading of prompts"
    if "lm_head" in matrix.name or "embed_tokens" in matrix.name:
        part = "head and embeddings"
    if matrix.name.startswith(SEARCH):
        part = "search for the best scores"
    grouped = f"blocks of {matrix.block}" if matrix.block else "whole rows"
    return f"{part}, {matrix.bits} bits, {grouped}"


def _recipe(options: ExportOptions) -> Recipe:
    from backends.store import Recipe

    return Recipe(
        precision=options.precision,
        recipe=options.recipe,
        block_size=options.block_size,
        symmetric=options.symmetric,
        search=options.search,
        accuracy_level=int(options.accuracy_level),  # type: ignore[arg-type]
        head_bits=int(options.head_bits) if options.head_bits else None,  # type: ignore[arg-type]
        shortlist=options.shortlist,
        int8_layers=_layers(options.int8_layers),
        vision_precision=options.vision_precision,
        prefill_precision=options.prefill_precision,
        calibrate=options.calibrate,
    )


def _layers(text: str) -> frozenset[int]:
    try:
        return frozenset(int(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise click.UsageError(f"--int8-layers wants numbers such as 0,1,27, got '{text}'") from None
