"""Kills exports at random moments and counts what they leave.

A program of its own, since it forks: ``python -m tests.store.export_kills FOLDER KILLS [real|naive]``.
Every child exports into the cache (HYBRID_HOME) and is killed. ``real`` takes the real exporter instead of
the stand-in, ``naive`` writes straight into place, as a control.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from backends.store import Manifest, Recipe, verify_folder
from router.models import Model, export_to, exports_folder, source_of
from tests import stand_in

PAUSE = 0.0004  # seconds before each of the 30 pieces that are written


def exporter(source, out, recipe, progress):
    return stand_in.export(source, out, recipe, progress, PAUSE)


def whole(model: Model, recipe: Recipe, target: Path) -> None:
    """As exports are made; what is there is replaced every time."""
    export_to(target, model, recipe, force=True, exporter=exporter)


def real(model: Model, recipe: Recipe, target: Path) -> None:
    """The same with the real exporter."""
    export_to(target, model, recipe, force=True)


def naive(model: Model, recipe: Recipe, target: Path) -> None:
    """Files written under their final names, one after the other."""
    target.mkdir(exist_ok=True, parents=True)
    for file in target.iterdir():
        file.unlink()
    matrices = exporter(model.folder, target, recipe, lambda *_: None)
    Manifest.describe(target, source_of(model), recipe, matrices).write(target)


def killed(work: Callable[[], None], seconds: float) -> bool:
    """Run ``work`` in a child and kill it after some time; whether it was still running."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def litter(parent: Path, target: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path != target)


def main(folder: Path, kills: int, export: Callable[[Model, Recipe, Path], None]) -> dict[str, object]:
    """Kill until ``kills`` exports died at work; the others had finished before."""
    model = Model("model", folder)
    recipes = [Recipe(), Recipe("int8")]  # each child replaces an export by another one
    target = exports_folder() / "model"
    started = time.monotonic()
    export(model, recipes[1], target)
    span = time.monotonic() - started
    chance = random.Random(0)
    number = running = broken = left = 0
    seen = set()
    while running < kills and number < 10 * kills:
        number += 1
        if number % 3 == 0:  # as on first use
            shutil.rmtree(target, ignore_errors=True)
        had = target.is_dir()
        died = killed(partial(export, model, recipes[number % 2], target), chance.uniform(0, span))
        span *= 1.05 if died else 0.9  # about two of three die, however busy the machine is
        running += died
        damages = verify_folder(target) if had or target.is_dir() else []
        broken += bool(damages)
        left += bool(litter(target.parent, target))
        if target.is_dir() and not damages:
            seen.add(Manifest.read(target).recipe.precision)
    export(model, recipes[0], target)
    return {
        "kills": running,
        "finished": number - running,
        "broken": broken,
        "left": left,
        "seen": sorted(seen),
        "leftovers": litter(target.parent, target),
        "damages": [str(damage) for damage in verify_folder(target)],
        "milliseconds": round(1000 * span),
    }


if __name__ == "__main__":
    ways = {"whole": whole, "real": real, "naive": naive}
    way = ways[sys.argv[3] if len(sys.argv) > 3 else "whole"]
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), way)))
