"""``hybrid export``: a checkpoint becomes ONNX graphs that run without PyTorch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import option
from router.cli.terminal import listening, size, write
from router.cli.verify import examine

if TYPE_CHECKING:
    from backends.store.manifest import Manifest
    from backends.store.recipe import MatrixError, Recipe


@click.command()
@click.argument("source")
@click.argument("out", required=False, type=click.Path(path_type=Path))
@option(
    "--precision",
    type=click.Choice(["int4", "int8", "fp32"]),
    default="int4",
    show_default=True,
    help="Of the language model's matrices.",
)
@option(
    "--recipe",
    type=click.Choice(["faithful", "fast"]),
    default="faithful",
    show_default=True,
    help="How INT4 is rounded: no worse than Q4_0, or for speed.",
)
@option(
    "--vision-precision",
    type=click.Choice(["int8", "w8", "fp32"]),
    help="Of the vision tower: int8, 8-bit weights only, or float32.",
)
@option(
    "--prefill-precision",
    type=click.Choice(["int8"]),
    help="Matrices of 8 bits too, by which the onnx backend reads long prompts faster; twice the disk.",
)
@option("--block-size", type=int, metavar="N", help="Values that share a scale: 16, 32, 64, 128 or 256.")
@option(
    "--symmetric/--asymmetric",
    default=None,
    help="Without zero points (where it is fast or calibrated) or with them (elsewhere).",
)
@option("--search/--no-search", default=True, help="Choose scales that keep the error least.")
@option(
    "--calibrate/--no-calibrate",
    default=False,
    help="Round each layer by what goes into it, on built-in prompts: nearer, and slower to export.",
)
@option("--head-bits", type=click.Choice(["4", "6", "8"]), help="Of the matrix that gives the scores.")
@option(
    "--shortlist",
    type=int,
    metavar="N",
    help="How many of the best scores are computed with all bits of the head, after 4 found them; 0: all.",
)
@option("--int8-layers", metavar="N,N..", default="", help="Decoder layers kept at 8 bits.")
@option(
    "--accuracy-level",
    type=click.Choice(["0", "1", "4"]),
    default="4",
    show_default=True,
    help="What products are computed in: 4 int8, 0 and 1 float32.",
)
@click.option(
    "--verify/--no-verify", default=False, help="Compare with PyTorch when it is done, as hybrid verify does."
)
@click.option("--force", is_flag=True, help="Make it anew, and replace what is at OUT if it is an export.")
@click.option("--no-wait", is_flag=True, help="Fail when another process is exporting the same.")
@option("--offline", is_flag=True, help="Do not ask the hub.")  # fmt: skip
def export(source: str, out: Path | None, **options: Any) -> None:
    """Export SOURCE (scenes, a checkpoint folder, or a hub id) for the onnx backend.

    The export goes to the cache, where every command finds it, or to the new folder OUT. Its path is printed.

    \b
    hybrid export Qwen/Qwen3-VL-2B-Instruct
    hybrid export ./qwen3-vl-2b ./qwen3-vl-2b-fast --recipe fast
    """
    from backends.base import BackendError
    from backends.store.manifest import Manifest
    from router.models import export_place, export_to, find

    recipe = _recipe(options)
    started = time.monotonic()
    with listening() as listener:
        model = find(source, listener, offline=options["offline"])
        target = export_place(model, recipe) if out is None else out
        made = export_to(target, model, recipe, listener, force=options["force"], wait=not options["no_wait"])
    manifest = Manifest.read(target)
    done = f"exported in {time.monotonic() - started:.1f} s" if made else "exported before"
    click.echo(f"{size(manifest.size)}, {done}", err=True)
    for line in worst_errors(manifest):
        click.echo(line, err=True)
    write(f"{target}\n")
    problems = examine(target, "torch", source, offline=options["offline"]) if options["verify"] else []
    if problems:
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
    from backends.store.recipe import SEARCH

    part = "vision" if "visual." in matrix.name else "language"
    if matrix.name.startswith("prefill."):
        part = "reading of prompts"
    if "lm_head" in matrix.name or "embed_tokens" in matrix.name:
        part = "head and embeddings"
    if matrix.name.startswith(SEARCH):
        part = "search for the best scores"
    grouped = f"blocks of {matrix.block}" if matrix.block else "whole rows"
    return f"{part}, {matrix.bits} bits, {grouped}"


def _recipe(said: dict[str, Any]) -> Recipe:
    from backends.store.recipe import Recipe

    return Recipe(
        precision=said["precision"],
        recipe=said["recipe"],
        block_size=said["block_size"],
        symmetric=said["symmetric"],
        search=said["search"],
        accuracy_level=int(said["accuracy_level"]),  # type: ignore[arg-type]
        head_bits=int(said["head_bits"]) if said["head_bits"] else None,  # type: ignore[arg-type]
        shortlist=said["shortlist"],
        int8_layers=_layers(said["int8_layers"]),
        vision_precision=said["vision_precision"],
        prefill_precision=said["prefill_precision"],
        calibrate=said["calibrate"],
    )


def _layers(text: str) -> frozenset[int]:
    try:
        return frozenset(int(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise click.UsageError(f"--int8-layers wants numbers such as 0,1,27, got '{text}'") from None
