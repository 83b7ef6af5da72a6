"""Versions of the libraries that answers depend on, read from their metadata; none of them is imported."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from packaging.version import InvalidVersion, Version

_LISTED = (
    "hybrid-router",
    "onnxruntime",
    "onnxruntime-genai",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "pillow",
    "onnx",
)
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


def packages() -> tuple[Package, ...]:
    """Every library that matters, the missing ones too."""
    listed = [Package(name, installed(name)) for name in _LISTED]
    others = [Package(name, found) for name in _IF_INSTALLED if (found := installed(name)) is not None]
    return tuple(_judged(package) for package in listed + others)


def installed(name: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _judged(package: Package) -> Package:
    if package.version is None or package.name not in FLOORS:
        return package
    floor, hole = FLOORS[package.name]
    if _is_below(package.version, floor):
        advice = f"pip install --upgrade '{package.name}>={floor}'"
        return Package(package.name, package.version, f"below {floor}: {hole}", advice)
    return package


def _is_below(found: str, floor: str) -> bool:
    try:
        return Version(found) < Version(floor)
    except InvalidVersion:  # somebody's own build, of which nothing is known
        return False
