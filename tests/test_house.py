"""What keeps the house one that can be drawn from memory: sizes, names, a family's face, folders of tests."""

import ast
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.sources import PRODUCT, ROOT, functions, imported, is_module, read

FILE_LINES = 300
FUNCTION_LINES = 50

FAMILIES = {"backends.qwen3vl": "tests.qwen3vl"}  # the folder of each, and its tests
ALL = {**PRODUCT, **read("tests", "benchmarks")}


def long_files(sources: Mapping[str, str]) -> set[str]:
    return {module for module, source in sources.items() if len(source.splitlines()) > FILE_LINES}


def long_functions(sources: Mapping[str, str]) -> set[str]:
    return {
        f"{module}.{name}"
        for module, source in sources.items()
        for name, lines in functions(source)
        if lines > FUNCTION_LINES
    }


def names_twice(sources: Mapping[str, str]) -> set[str]:
    """Public classes that more than one module defines."""
    names = Counter(
        node.name
        for source in sources.values()
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return {name for name, times in names.items() if times > 1}


def insides(source: str, family: str) -> set[str]:
    """The modules behind a family's face that a source imports, or that stand in one of its strings.

    A string may be a script for a child process, or name what a test patches.
    """
    family_name = re.compile(rf"{re.escape(family)}\.\w+")
    behind = {".".join(name.split(".")[:3]) for name in imported(source)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            behind |= set(family_name.findall(node.value))
    return {name for name in behind if name.startswith(f"{family}.") and is_module(name)}


def without_init(tests: Path) -> set[str]:
    """The folders of tests that are no package."""
    folders = {file.parent for file in tests.rglob("*.py")}
    return {str(folder.relative_to(tests)) for folder in folders if not (folder / "__init__.py").is_file()}


def test_no_file_is_too_long_for_one_idea() -> None:
    assert long_files(PRODUCT) == set()


def test_a_file_a_line_too_long_is_noticed() -> None:
    assert long_files({"a": "\n" * FILE_LINES, "b": "\n" * (FILE_LINES + 1)}) == {"b"}


def test_every_function_fits_in_the_eye() -> None:
    assert long_functions(PRODUCT) == set()


def test_a_function_a_line_too_long_is_noticed_wherever_it_stands() -> None:
    body = "    pass\n" * (FUNCTION_LINES - 1)
    fits = f"def fits():\n{body}"
    inside = "class C:\n" + "".join(
        f"    {line}\n" for line in f"async def inside():\n{body}    pass".splitlines()
    )
    assert long_functions({"a": fits}) == set()
    assert long_functions({"a": f"{fits}    pass\n", "b": inside}) == {"a.fits", "b.inside"}


def test_a_public_class_name_exists_once() -> None:
    assert names_twice(PRODUCT) == set()


def test_a_public_class_name_that_stands_twice_is_noticed() -> None:
    sources = {"a": "class Kept: ...\nclass _Own: ...", "b": "class Kept(int): ...\nclass _Own: ..."}
    assert names_twice(sources) == {"Kept"}


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_reaches_behind_the_face_of_a_family(family: str) -> None:
    homes = (f"{family}.", f"{FAMILIES[family]}.")
    reaching = {module for module, source in ALL.items() if family in source and insides(source, family)}
    strangers = {module for module in reaching if not f"{module}.".startswith(homes)}
    assert strangers == {__name__}, "the control below names what breaks the rule; nobody else may"


@pytest.mark.parametrize(
    "line",
    [
        "from backends.qwen3vl.config import Config",
        "from backends.qwen3vl import positions",
        "import backends.qwen3vl.tower",
        "def late():\n    from backends.qwen3vl.images import patches",
        "patch.setattr('backends.qwen3vl.images.patches', None)",
        "run('import sys\\nfrom backends.qwen3vl.images import patches')",
    ],
)
def test_a_reach_behind_the_face_is_noticed(line: str) -> None:
    assert insides(line, "backends.qwen3vl")
    assert not insides("from backends.qwen3vl import Config, patches", "backends.qwen3vl")


def test_every_folder_of_tests_is_a_package() -> None:
    """Else pytest puts tests/ on the module path, where tests/torch shadows the library."""
    assert without_init(ROOT / "tests") == set()


def test_a_folder_of_tests_that_is_no_package_is_noticed(tmp_path: Path) -> None:
    for name in ("torch", "onnx", "onnx/deep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test_backend.py").touch()
    (tmp_path / "onnx" / "__init__.py").touch()
    (tmp_path / "__init__.py").touch()
    assert without_init(tmp_path) == {"torch", "onnx/deep"}


def test_every_file_that_the_quick_check_runs_exists() -> None:
    names = re.findall(r"\btests/\S+", (ROOT / ".ci" / "check").read_text("utf-8"))
    assert len(names) > 20
    assert [name for name in names if not (ROOT / name).exists()] == []
