"""docs/architecture.md and docs/contributing.md name what there is, and all of it."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, blocks, quoted, section
from tests.test_layers import layer_of

ARCHITECTURE = PAGES["docs/architecture.md"]
FOR_CHANGES = ("docs/architecture.md", "docs/contributing.md")


def drawn(tree: str) -> list[str]:
    """The paths of a tree: two blanks a level, a path, two blanks, what it is for."""
    paths, folders = [], list[str]()
    for line in tree.splitlines():
        indent, name = re.fullmatch(r"( *)(\S+)(?: {2,}.*)?", line).groups()  # type: ignore[union-attr]
        folders = folders[: len(indent) // 2]
        paths.append("".join([*folders, name]))
        folders.append(name)
    return paths


TREE = drawn(blocks(section(ARCHITECTURE, "The tree"), "text")[0])


def parts_of(*packages: str) -> set[str]:
    """Every folder and module of these packages, as the tree writes them."""
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    folders = {f"{file.parent.relative_to(ROOT)}/" for file in files}
    return folders | {str(file.relative_to(ROOT)) for file in files if file.stem != "__init__"}


def test_what_the_tree_names_exists() -> None:
    assert [path for path in TREE if not (ROOT / path).exists()] == []
    assert len(set(TREE)) == len(TREE)


def test_the_tree_names_every_room_and_file() -> None:
    assert parts_of("backends", "router") - set(TREE) == set()


def test_a_room_that_the_tree_leaves_out_is_noticed() -> None:
    assert "router/sampling/" in parts_of("router")
    assert drawn("router/  a\n  sampling/  b\n    sampler.py  c\n  types.py  d") == [
        "router/",
        "router/sampling/",
        "router/sampling/sampler.py",
        "router/types.py",
    ]


def test_imports_go_the_way_that_is_drawn() -> None:
    (order,) = blocks(section(ARCHITECTURE, "Which way imports go"), "text")
    assert goes_up(order)
    assert not goes_up("\n".join(reversed(order.splitlines())))


def goes_up(order: str) -> bool:
    """Whether each line stands on higher layers than the one before."""
    levels = [{layer_of(name.strip())[0] for name in line.split(",")} for line in order.splitlines()]
    return all(max(below) < min(above) for below, above in pairwise(levels))


def declared(source: str) -> dict[str, dict[str, str]]:
    """Of every class its fields and methods, with the arguments of these."""
    return {
        node.name: dict(filter(None, map(_part, node.body)))
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def _part(node: ast.stmt) -> tuple[str, str] | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id, ""
    if isinstance(node, ast.FunctionDef):
        derived = "property" in map(ast.unparse, node.decorator_list)
        return node.name, "" if derived else ast.unparse(node.args)
    return None


def contract_differences(page: str, code: str) -> set[str]:
    """Where the page's contract is not the code's; what a prompt derives is left to the code."""
    shown, real = declared(page), declared(code)
    errors = {"RequestError", "BackendError"}
    found = {f"{name}.{part}" for name in shown for part in shown[name] if name not in real}
    for name in shown.keys() & real.keys() - errors:
        parts = real[name] if name != "Prompt" else {p: a for p, a in real[name].items() if p in shown[name]}
        found |= {f"{name}.{part}" for part, _ in shown[name].items() ^ parts.items()}
    return found


def test_the_contract_on_the_page_is_that_of_the_code() -> None:
    (page,) = blocks(section(ARCHITECTURE, "The contract"), "python")
    code = (ROOT / "backends" / "base.py").read_text("utf-8")
    assert {"Traits", "Prompt", "Prefilled", "Session", "Backend"} <= set(declared(page))
    assert contract_differences(page, code) == set()
    assert contract_differences(page.replace("token: int", "tokens: int"), code) == {"Session.decode"}


def classes(paths: Iterable[Path]) -> set[str]:
    return {
        node.name
        for path in paths
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.parametrize("page", FOR_CHANGES)
def test_the_classes_and_files_that_are_named_exist(page: str) -> None:
    known = classes(file for package in ("backends", "router") for file in (ROOT / package).rglob("*.py"))
    names = [name for name in quoted(PAGES[page]) if re.fullmatch(r"(?:[A-Z][a-z]+){1,4}", name)]
    assert names
    assert set(names) - known == set()
    paths = [name for name in quoted(PAGES[page]) if re.fullmatch(r"[\w./]+/[\w./]*", name)]
    assert [path for path in paths if not re.search(r"[A-Z]{2}", path) and not (ROOT / path).exists()] == []


def test_modules_that_the_changelog_sends_to_exist() -> None:
    moved = section(PAGES["docs/changelog.md"], "Changed").partition("Modules that moved")[2]
    rows = re.findall(r"^\| .* \| `([\w.]+)`(?:, `([\w.]+)`)? \|$", moved, re.MULTILINE)
    assert rows
    for module in filter(None, (name for row in rows for name in row)):
        importlib.import_module(module)


def test_the_changelog_knows_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert re.search(r"^## (\S+?),? ", PAGES["docs/changelog.md"], re.MULTILINE)[1] == project["version"]  # type: ignore[index]
