"""The software that answers depend on: versions, read from the packages' metadata, and this package's commit.

None of the packages is imported.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

ANSWERING = (
    "hybrid-router",
    "onnxruntime",
    "onnxruntime-genai",
    "torch",
    "transformers",
    "numpy",
    "tokenizers",
    "pillow",
)
_EXPORTING = ("onnx",)
_IF_INSTALLED = ("onnxruntime-gpu", "onnxruntime-genai-cuda", "starlette")  # nobody misses them

# Below these a known hole is open.
FLOORS = {
    "pillow": ("13.0.0", "a JPEG can overwrite memory (CVE-2026-112403)"),
    "onnx": ("1.21.0", "open holes (CVE-2026-28500, CVE-2026-34445)"),
    "torch": ("2.6", "loading weights can run code (CVE-2025-32434)"),
    "starlette": ("1.3.0", "a request can pass for one to another path (CVE-2026-48710)"),
}


@dataclass(frozen=True)
class Package:
    """One library."""

    name: str
    version: str | None  # None: not installed
    problem: str | None = None
    advice: str | None = None

    @property
    def judged(self) -> Package:
        """With the problem and the advice where its version is below a floor."""
        floor, hole = FLOORS.get(self.name, ("", ""))
        if self.version is None or not floor or not _is_below(self.version, floor):
            return self
        advice = f"pip install --upgrade '{self.name}>={floor}'"
        return replace(self, problem=f"below {floor}: {hole}", advice=advice)


def packages() -> tuple[Package, ...]:
    """Every library that matters, the missing ones too."""
    known = [Package(name, installed(name)) for name in (*ANSWERING, *_EXPORTING, *_IF_INSTALLED)]
    return tuple(each.judged for each in known if each.version is not None or each.name not in _IF_INSTALLED)


def versions() -> Mapping[str, str]:
    """Of Python, and of every installed package that takes part in an answer."""
    known = {name: installed(name) for name in ANSWERING}
    return {"python": platform.python_version()} | {name: found for name, found in known.items() if found}


def installed(name: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_below(found: str, floor: str) -> bool:
    try:
        return Version(found) < Version(floor)
    except InvalidVersion:  # somebody's own build, of which nothing is known
        return False


def commit(root: Path = Path(__file__).parent.parent) -> str | None:
    """The git commit of this package's code, with ``+`` where it was changed since; None outside a clone."""
    if not (root / ".git").exists():
        return None
    head, changes = _git(root, "rev-parse", "--short=12", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    return None if head is None else head + ("+" if changes else "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
