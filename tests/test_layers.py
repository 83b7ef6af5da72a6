"""Imports go one way: what is lower does not know what is higher."""

import graphlib
import sys
from collections.abc import Mapping

import pytest

from tests.sources import PRODUCT, arrows, imported, is_module

LAYERS = [
    ["backends.base"],
    ["backends.machine", "backends.prefix_cache", "backends.store"],
    ["backends.qwen3vl"],
    ["backends.export", "backends.torch.loading"],
    ["backends.torch", "backends.genai", "backends.onnx", "backends.scripted"],
    ["backends"],
    ["router.types"],
    ["router.images", "router.detokenize", "router.sampling", "router.api.messages"],
    ["router.prompt"],
    ["router.generate", "router.models.calibration"],
    ["router.models"],
    ["router.estimates", "router.machine", "router.packages"],
    ["router.resolve", "router.policy", "router.pool"],
    ["router.router", "router.parity", "router.bench"],
    ["router.doctor"],
    ["router"],
    ["router.api"],
    ["router.server"],
    ["router.cli"],
]


def layer_of(module: str) -> tuple[int, str]:
    """The layer of the longest listed name that holds ``module``, and that name."""
    holders = [
        (len(name), level, name)
        for level, names in enumerate(LAYERS)
        for name in names
        if module == name or (module.startswith(name + ".") and name not in ("backends", "router"))
    ]
    assert holders, f"{module} stands in no layer: add it"
    _, level, name = max(holders)
    return level, name


def wrong_imports(module: str, source: str) -> list[str]:
    level, own = layer_of(module)
    wrong = []
    for name in imported(source):
        if name.split(".")[0] not in ("backends", "router"):
            continue
        target = name if is_module(name) else name.rpartition(".")[0]
        other_level, other = layer_of(target)
        if own == other or other_level < level:
            continue
        wrong.append(f"{module} imports {target}")
    return wrong


@pytest.mark.parametrize("module", PRODUCT)
def test_imports_go_down_only(module: str) -> None:
    assert wrong_imports(module, PRODUCT[module]) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backends.torch.backend", "from router.types import Stats"),
        ("backends.torch.backend", "import backends.scripted"),
        ("backends.base", "from backends.qwen3vl import config"),
        ("backends.store.folder", "from backends.qwen3vl import Config"),
        ("router.detokenize", "from router.router import Router"),
        ("router.images.reader", "from router.prompt import PromptBuilder"),
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
        module
        for module, source in PRODUCT.items()
        if library in {name.split(".")[0] for name in imported(source)}
    }
    assert users
    strangers = {
        user for user in users if not any((user + ".").startswith(home + ".") for home in HEAVY[library])
    }
    assert strangers == set()


def circle(sources: Mapping[str, str]) -> list[str]:
    """Modules that import one another in a circle, for type checking too; empty where there is none."""
    try:
        graphlib.TopologicalSorter(arrows(sources)).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circle(PRODUCT) == []


@pytest.mark.parametrize(
    "line",
    [
        "from router.router import Router",
        "import router.router",
        "from router import router",
        "if TYPE_CHECKING:\n    from router.router import Router",
        "def late():\n    from router.router import Router",
    ],
)
def test_a_circle_of_imports_is_noticed(line: str) -> None:
    changed = {**PRODUCT, "router.types": f"{PRODUCT['router.types']}\n{line}\n"}
    assert {"router.types", "router.router"} <= set(circle(changed))


def test_every_layer_exists() -> None:
    assert [name for names in LAYERS for name in names if not is_module(name)] == []
    assert sys.version_info >= (3, 11)
