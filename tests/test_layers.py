"""Imports go one way: what is lower does not know what is higher."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    ["backends.base"],
    ["backends.store"],
    ["backends.qwen3vl"],
    ["backends.machine", "backends.prefix_cache"],
    ["backends.export", "backends.torch.loading"],
    ["backends.torch", "backends.genai", "backends.onnx", "backends.scripted"],
    ["backends"],
    ["router.types"],
    ["router.images", "router.detokenize", "router.sampling", "router.prompt"],
    ["router.generate", "router.models.calibration"],
    ["router.models"],
    ["router.estimates", "router.machine"],
    ["router.resolve", "router.policy", "router.pool"],
    ["router.router", "router.parity", "router.bench"],
    ["router.doctor"],
    ["router"],
    ["router.api"],
    ["router.server"],
    ["router.cli"],
]
# modules of one layer that may know each other, in this direction
BESIDE = {("router.prompt", "router.images")}

FILES = sorted(file for top in ("backends", "router") for file in (ROOT / top).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> tuple[int, str]:
    """The layer of the longest listed name that holds ``module``, and that name."""
    held = [
        (len(name), level, name)
        for level, names in enumerate(LAYERS)
        for name in names
        if module == name or (module.startswith(name + ".") and name not in ("backends", "router"))
    ]
    assert held, f"{module} stands in no layer: add it"
    _, level, name = max(held)
    return level, name


def imported(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def wrong_imports(module: str, source: str) -> list[str]:
    level, own = layer_of(module)
    wrong = []
    for name in imported(source):
        if name.split(".")[0] not in ("backends", "router"):
            continue
        target = name if is_module(name) else name.rpartition(".")[0]
        other_level, other = layer_of(target)
        if own == other or other_level < level or (own, other) in BESIDE:
            continue
        wrong.append(f"{module} imports {target}")
    return wrong


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down_only(file: Path) -> None:
    assert wrong_imports(module_of(file), file.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backends.torch.backend", "from router.types import Stats"),
        ("backends.torch.backend", "import backends.scripted"),
        ("backends.base", "from backends.qwen3vl import config"),
        ("router.detokenize", "from router.router import Router"),
        ("router.router", "from router import Router"),
    ],
)
def test_an_upward_import_is_noticed(module: str, line: str) -> None:
    assert wrong_imports(module, line)


HEAVY = {
    "torch": {"backends.torch", "backends.onnx.torch_vision", "router.bench.rates"},
    "transformers": {"backends.torch", "backends.onnx.torch_vision"},
    "onnxruntime": {"backends.onnx", "router.bench.rates"},
    "onnxruntime_genai": {"backends.genai"},
    "onnx": {"backends.export", "backends.onnx.blobs", "backends.onnx.packed", "router.bench.rates"},
    "matplotlib": {"router.bench.plot"},
    "prompt_toolkit": {"router.cli.chat"},
    "llguidance": {"router.sampling.grammar"},
    "pydantic": {"router.api", "router.server"},
    "fastapi": {"router.server"},
    "starlette": {"router.server"},
    "uvicorn": {"router.server"},
    "prometheus_client": {"router.server"},
}


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_where_it_belongs_only(library: str) -> None:
    users = {
        module_of(file)
        for file in FILES
        if library in {name.split(".")[0] for name in imported(file.read_text("utf-8"))}
    }
    assert users
    strangers = {
        user for user in users if not any((user + ".").startswith(home + ".") for home in HEAVY[library])
    }
    assert strangers == set()


def test_every_layer_exists() -> None:
    assert [name for names in LAYERS for name in names if not is_module(name)] == []
    assert sys.version_info >= (3, 11)
