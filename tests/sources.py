"""The project's own source as the tests that hold the house read it: modules, and what they import."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(*tops: str) -> dict[str, str]:
    """Module -> source of every file of these top folders."""
    files = sorted(file for top in tops for file in (ROOT / top).rglob("*.py"))
    return {module_of(file): file.read_text("utf-8") for file in files}


PRODUCT = read("backends", "router")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@cache
def imported(source: str) -> frozenset[str]:
    """The full names of all that a source imports, inside functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def arrows(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> those of the others among ``sources`` that it imports."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        targets = {name if name in sources else name.rpartition(".")[0] for name in imported(source)}
        graph[module] = {target for target in targets if target in sources and target != module}
    return graph


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and lines of every function, those inside others too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            yield node.name, node.end_lineno - node.lineno + 1
