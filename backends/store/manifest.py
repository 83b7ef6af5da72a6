"""``manifest.json``: what an export was made from and how, and the size and sha256 of every file in it.

It ends with its own checksum, and is read only where it is, to the byte, what would be written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.base import BackendError, RequestError
from backends.store.fields import Fields
from backends.store.recipe import MatrixError, Recipe

MANIFEST = "manifest.json"
FORMAT = 1
# fields of a recipe that came later, as they were before
_LATER = {"prefill_precision": None, "shortlist": None, "calibrate": False}
EXPORTER = 3  # raise it whenever the exporter writes something else: older exports are then made again


@dataclass(frozen=True)
class Source:
    """The checkpoint an export was made from."""

    name: str
    revision: str | None  # the hub's commit, where it came from there
    fingerprint: str  # changes when a file of the checkpoint does


@dataclass(frozen=True)
class FileRecord:
    """A file of an export, as it was written."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Read the file at ``path``."""
        return cls(path.stat().st_size, sha256(path))


@dataclass(frozen=True)
class Manifest:
    """Everything an export says of itself."""

    source: Source
    recipe: Recipe
    matrices: tuple[MatrixError, ...]
    files: Mapping[str, FileRecord]
    exporter: int = EXPORTER

    @classmethod
    def describe(
        cls, folder: Path, source: Source, recipe: Recipe, matrices: Iterable[MatrixError]
    ) -> Manifest:
        """The manifest of the files that stand in ``folder``."""
        files = {path.name: FileRecord.of(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
        return cls(source, recipe, tuple(matrices), files)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in ``folder``; BackendError ``model_invalid``: none, damaged, or of another format."""
        path = folder / MANIFEST
        values = dict(Fields.read(path).values)
        if values.get("format") != FORMAT:
            raise BackendError(
                f"{path} is of format {values.get('format')!r:.20}, this version reads {FORMAT}; "
                "export the model again",
                code="model_invalid",
            )
        try:
            manifest = _manifest(values)
            # a flipped bit may also stand between the values, so the whole text must be what would be written
            intact = path.read_text("utf-8") == manifest.text()
        except (KeyError, TypeError, ValueError, AttributeError, RequestError):
            intact = False
        if not intact:
            raise BackendError(f"{path} is damaged; export the model again", code="model_invalid")
        return manifest

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into ``folder``."""
        (folder / MANIFEST).write_text(self.text(), "utf-8")

    def text(self) -> str:
        """The JSON text, which ends with its own checksum."""
        values = {
            "format": FORMAT,
            "exporter": self.exporter,
            "source": asdict(self.source),
            "recipe": recipe_fields(self.recipe),
            "matrices": [_numbers(matrix) for matrix in self.matrices],
            "files": {name: asdict(file) for name, file in self.files.items()},
        }
        return _dump(values | {"checksum": hashlib.sha256(_dump(values).encode()).hexdigest()})

    @property
    def size(self) -> int:
        """Bytes of all the files it lists."""
        return sum(file.size for file in self.files.values())


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON holds it; what earlier versions did not know is there only where it is chosen."""
    fields = asdict(recipe) | {"int8_layers": sorted(recipe.int8_layers)}
    return {name: value for name, value in fields.items() if name not in _LATER or value != _LATER[name]}


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _numbers(matrix: MatrixError) -> dict[str, Any]:
    """A matrix as JSON holds it: floats are Python's own, and what was not measured is left out."""
    fields = matrix._asdict().items()
    return {key: float(value) if "error" in key else value for key, value in fields if value is not None}


def _manifest(values: dict[str, Any]) -> Manifest:
    recipe = values["recipe"]
    files = {name: FileRecord(**file) for name, file in values["files"].items()}
    if any(Path(name).name != name or name in ("", "..", MANIFEST) for name in files):
        raise ValueError("a file outside the folder")
    return Manifest(
        Source(**values["source"]),
        Recipe(**recipe | {"int8_layers": frozenset(recipe["int8_layers"])}),
        tuple(MatrixError(**matrix) for matrix in values["matrices"]),
        files,
        values["exporter"],
    )


def _dump(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
