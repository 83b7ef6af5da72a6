"""``hybrid models``: what is on this machine, and how to get and remove it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from router.cli.export import worst_errors
from router.cli.fields import option, options_class, takes
from router.cli.terminal import progress_bar, size, write

if TYPE_CHECKING:
    from router.models import Entry

as_object = click.option("--json", "as_object", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List, pull, show and remove models.

    Checkpoints of the hub are kept in its own cache (HF_HOME), exports in HYBRID_HOME.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@models.command("list")
@as_object
def list_models(as_object: bool) -> None:
    """List the checkpoints and exports on this machine."""
    from router.models import local_models

    entries = list(local_models())
    if as_object:
        write(_json([entry.fields() for entry in entries]))
    else:
        write(_table([("NAME", "KIND", "SIZE", "MADE FROM"), *map(_row, entries)]))


@options_class
class PullOptions:
    """Which revision is wanted, and how its folder is printed."""

    revision: str | None = option("--revision", metavar="REVISION", help="A branch, tag or commit.")
    offline: bool = option(
        "--offline", is_flag=True, help="Do not ask the hub; succeed if all of it is here."
    )
    as_object: bool = option("--json", environment=False, is_flag=True, help="Print JSON.")


@models.command()
@click.argument("name", metavar="ORG/NAME[@REVISION]")
@takes(PullOptions)
def pull(options: PullOptions, name: str) -> None:
    """Download a checkpoint from the Hugging Face hub, or bring it up to date, and print its folder."""
    from router.models import HubId, describe
    from router.models import pull as pull_model

    hub_id = HubId.parse(name if options.revision is None else f"{name}@{options.revision}")
    if hub_id is None:
        raise click.UsageError(
            f"'{name}' is not a hub id, such as Qwen/Qwen3-VL-2B-Instruct or org/name@revision"
        )
    with progress_bar() as listener:
        model = pull_model(hub_id, listener, offline=options.offline)
    write(_json(describe(model).fields()) if options.as_object else f"{model.folder}\n")


@models.command()
@click.argument("name")
@as_object
def show(name: str, as_object: bool) -> None:
    """Tell what a model is made of."""
    from backends.store import Manifest
    from router.models import describe, find
    from router.prompt.checkpoint import read_generation_config
    from router.sampling import ignored

    model = find(name, offline=True)
    entry = describe(model)
    unheeded = ignored(read_generation_config(model.folder))
    if as_object:
        write(_json(entry.fields() | {"ignored": unheeded}))
        return
    lines = [f"{key}: {value}" for key, value in entry.fields().items() if value is not None]
    lines += [f"generation_config.json: {sentence}" for sentence in unheeded]
    errors = worst_errors(Manifest.read(model.folder)) if model.is_export else ()
    write("\n".join([*lines, *errors]) + "\n")


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print a model's folder."""
    from router.models import find

    write(f"{find(name, offline=True).folder}\n")


@models.command()
@click.argument("name")
def rm(name: str) -> None:
    """Remove an export or a pulled checkpoint, without asking; nothing outside the caches is touched."""
    from router.models import remove_model

    freed = remove_model(name)
    click.echo(f"removed {name}, {size(freed)}", err=True)


def _row(entry: Entry) -> tuple[str, str, str, str]:
    return entry.name, entry.kind, size(entry.size), entry.source or ""


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
