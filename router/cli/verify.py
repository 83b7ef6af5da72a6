"""``hybrid verify``: whether a model's export is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import option
from router.cli.output import write
from router.cli.progress import listening, size

if TYPE_CHECKING:
    from router.models import Listener, Model


@click.command()
@click.argument("name", metavar="MODEL")
@option("--offline", is_flag=True, help="Do not ask the hub.")
def verify(name: str, offline: bool) -> None:
    """Read every file of MODEL's exports and compare it with the manifest; exit code 4 names what is damaged.

    MODEL is an export, or a checkpoint whose exports in the cache are meant.
    """
    from backends.base import BackendError
    from backends.export.checks import verify as damages_of
    from backends.export.manifest import Manifest

    damages: list[str] = []
    with listening() as listener:
        for folder in _exports(name, listener, offline):
            found = damages_of(folder, listener.progress)
            damages += [f"{folder / damage.file} {damage.problem}" for damage in found]
            if not found:
                manifest = Manifest.read(folder)
                write(f"{folder}: {len(manifest.files)} files, {size(manifest.size)}, all as exported\n")
    if damages:
        raise BackendError("; ".join(damages), code="model_invalid")


def _exports(name: str, listener: Listener, offline: bool) -> Iterator[Path]:
    """The folders that ``name`` means."""
    from backends.base import RequestError
    from router.models import exports_of, find, find_folder

    if (folder := find_folder(name)) is not None and (folder / "manifest.json").exists():
        yield folder  # also one that `find` would refuse as damaged
        return
    model: Model = find(name, listener, offline=offline)
    folders = exports_of(model)
    if not folders:
        raise RequestError(
            f"'{name}' has no export in the cache yet; make one with: hybrid export {name}",
            code="model_not_found",
            param="model",
        )
    yield from folders
