"""JSON objects of a model folder, read field by field so that an error can name the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import BackendError

LARGEST_FILE = 1 << 20  # bytes; a configuration has a few thousand


@dataclass(frozen=True)
class Fields:
    """A JSON object of a model folder, read field by field; what is wrong is named in a BackendError."""

    path: Path
    values: Mapping[str, Any]
    prefix: str = ""

    def __post_init__(self) -> None:
        self.absent("auto_map", "code from a model folder is never run; use a checkpoint without it")

    @classmethod
    def read(cls, path: Path) -> Fields:
        """The object in a JSON file of at most 1 MB."""
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise BackendError(f"{path} is larger than {LARGEST_FILE} bytes", code="model_invalid")
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BackendError(f"{path} cannot be read: {error.strerror}", code="model_invalid") from None
        except (ValueError, RecursionError):
            raise BackendError(f"{path} is not valid JSON; copy it again", code="model_invalid") from None
        if not isinstance(values, dict):
            raise BackendError(f"{path} must hold one JSON object", code="model_invalid")
        return cls(path, values)

    def bad(self, name: str, expected: str, got: object) -> BackendError:
        """The error for a field that is not what it must be."""
        return BackendError(
            f"{self.path}: {self.prefix}{name} must be {expected}, got {got!r:.80}", code="model_invalid"
        )

    def section(self, name: str) -> Fields:
        """The fields of an object inside this one."""
        inner = self.values.get(name)
        if not isinstance(inner, dict):
            raise self.bad(name, "an object", inner)
        return Fields(self.path, inner, f"{self.prefix}{name}.")

    def expect(self, name: str, expected: object, *, required: bool = False) -> None:
        """Refuse any other value than ``expected``; one left out or null passes unless required."""
        got = self.values.get(name)
        if (required or got is not None) and (type(got) is not type(expected) or got != expected):
            raise self.bad(name, repr(expected), got)

    def absent(self, name: str, instead: str) -> None:
        """Refuse the field, saying what to do instead."""
        if self.values.get(name) is not None:
            raise BackendError(
                f"{self.path}: {self.prefix}{name} is not supported; {instead}", code="model_invalid"
            )

    def whole(self, name: str, *, least: int = 1, most: int = 2**31 - 1) -> int:
        """A whole number from ``least`` to ``most``."""
        value = self.values.get(name)
        if type(value) is not int or not least <= value <= most:
            raise self.bad(name, f"a whole number from {least} to {most}", value)
        return value

    def wholes(self, name: str, *, least: int = 1) -> tuple[int, ...]:
        """A list of whole numbers from ``least`` up."""
        values = self.values.get(name)
        if not isinstance(values, list) or any(type(v) is not int or v < least for v in values):
            raise self.bad(name, f"a list of whole numbers from {least} up", values)
        return tuple(values)

    def number(self, name: str) -> float:
        """A number above 0 and below 1e30."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise self.bad(name, "a number above 0", value)
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false; ``default`` where the field is left out."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.bad(name, "true or false", value)
        return value
