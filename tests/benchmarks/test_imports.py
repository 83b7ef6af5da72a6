"""What benchmarks ask for: they are run where the tests' tools are not installed."""

import ast
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
OF_TESTS = {"tests", "pytest", "hypothesis"}


def imported(source: str) -> set[str]:
    """The top-level names of all packages that ``source`` imports, wherever it does."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("file", sorted(BENCHMARKS.rglob("*.py")), ids=lambda file: file.stem)
def test_a_benchmark_asks_for_no_test_and_for_no_tool_of_tests(file: Path) -> None:
    assert not imported(file.read_text("utf-8")) & OF_TESTS


def test_an_import_of_the_tests_would_be_seen() -> None:
    source = "import json\ndef late():\n    from tests.api.parsing import refused\n"
    assert imported(source) & OF_TESTS == {"tests"}
