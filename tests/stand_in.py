"""An exporter in place of the real one: a few files, written slowly in pieces, always the same bytes."""

import hashlib
import os
import shutil
import time
from pathlib import Path

from backends.store import MatrixError, Recipe
from router.models import Model, ensure_export
from tests.models.test_find import weights

INT4, INT8 = Recipe(), Recipe("int8")
MATRICES = (MatrixError("layers.0.q_proj", 4, 32, 0.07), MatrixError("lm_head", 8, 32, 0.006))
COPIED = ("config.json", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json")
SIZES = {"decoder.onnx": 3_000, "text.onnx": 2_000, "vision.onnx": 1_000, "weights.data": 200_000}


def content(name: str, recipe: Recipe) -> bytes:
    seed = hashlib.sha256(f"{name} {recipe.precision}".encode()).digest()
    return (seed * (SIZES[name] // len(seed) + 1))[: SIZES[name]]


def export(source, out, recipe, progress, pause: float = 0.0, samples=None) -> tuple[MatrixError, ...]:
    """Has the exporter's signature; ``pause`` seconds pass before each of about 30 pieces."""
    assert list(out.iterdir()) == []
    total = sum(SIZES.values())
    done = 0
    for name in SIZES:
        data = content(name, recipe)
        with (out / name).open("xb") as stream:
            for start in range(0, len(data), 10_000):
                progress(name, done, total)
                done += stream.write(data[start : start + 10_000])
                stream.flush()
                time.sleep(pause)
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    return MATRICES


def counting(log: Path, pause: float = 0.0):
    """The exporter, which adds a line to ``log`` each time it runs."""

    def run(source, out, recipe, progress):
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        return export(source, out, recipe, progress, pause)

    return run


def checkpoint(folder: Path) -> Model:
    """A folder that passes for a checkpoint."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights())
    return Model(folder.name, folder)


def ensure(model: Model, recipe: Recipe = INT4, **settings) -> Path:
    """The model's export in the cache, made by the stand-in unless another exporter is given."""
    return ensure_export(model, recipe, exporter=settings.pop("exporter", export), **settings)


def listing(folder: Path) -> list[str]:
    """The names in a folder; none where there is no folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
