"""How far each way of rounding moves a model's layers: python -m benchmarks.rounding router/scenes

Every matrix of the language model's layers is rounded in each way, for the very same inputs: those that the
unrounded model has on the prompts that `hybrid export --calibrate` uses. Output errors are of the prompts
that are kept apart from calibration. With --verify each way is exported too and compared with PyTorch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends import Runtime
from backends.export import Recipe, export, vision
from backends.export.calibration.compensate import compensate, feedback, hessian
from backends.export.calibration.samples import States, embed_prompts
from backends.export.calibration.walk import MODEL, Walk
from backends.export.quantize import dequantise, quantise
from backends.qwen3vl import Config
from backends.store import Weights
from router.models.calibration import samples
from router.parity import verify

Matrix = NDArray[np.float32]
STEPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
RECIPES = {
    "symmetric, block 32, by the extreme (as Q4_0)": Recipe(symmetric=True, search=False, block_size=32),
    "searched, block 32": Recipe(block_size=32),
    "searched, block 64": Recipe(block_size=64),
    "searched, block 128": Recipe(block_size=128),
    "searched, block 128, symmetric": Recipe(block_size=128, symmetric=True),
    "calibrated, block 32": Recipe(block_size=32, symmetric=False, calibrate=True),
    "calibrated, block 64": Recipe(block_size=64, symmetric=False, calibrate=True),
    "calibrated, block 128": Recipe(block_size=128, symmetric=False, calibrate=True),
    "calibrated, block 128, symmetric": Recipe(block_size=128, symmetric=True, calibrate=True),
}


def main() -> None:
    """Reads the options and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--layers", type=int, help="how many of the first layers; all by default")
    parser.add_argument("--no-images", action="store_true", help="text alone: no tower is run")
    parser.add_argument("--verify", action="store_true", help="export each way and compare it with PyTorch")
    options = parser.parse_args()
    columns = ["rounding", "bits a weight", "weight error", "output error", *STEPS]
    print(f"| {' | '.join(columns + ['nats, worst prompt', 'top-1'] * options.verify)} |")
    print("|---" * (len(columns) + 2 * options.verify) + "|")
    found = measure(options.checkpoint, options.layers, images=not options.no_images)
    for name, recipe in RECIPES.items():
        errors = found[name]
        outputs = {step: np.mean([output for _, output in errors[step]]) for step in STEPS}
        weights = np.mean([weight for step in STEPS for weight, _ in errors[step]])
        cells = [
            f"{bits(recipe, options.checkpoint):.2f}",
            f"{weights:.4f}",
            f"{np.mean([*outputs.values()]):.4f}",
        ]
        cells += [f"{output:.4f}" for output in outputs.values()]
        if options.verify:
            cells += compared(options.checkpoint, recipe)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


Errors = dict[str, list[tuple[float, float]]]  # of each step and layer: of the weights, of the outputs


def measure(checkpoint: Path, layers: int | None, *, images: bool) -> dict[str, Errors]:
    """The errors of each way of rounding, on the same inputs."""
    config, weights = Config.read(checkpoint), Weights(checkpoint)
    states, middle, end = start(checkpoint, config, weights, images=images)
    walk = Walk(states, weights, config.text)
    found: dict[str, Errors] = {name: defaultdict(list) for name in RECIPES}
    for index in range(layers or config.text.layers):
        for step, parts in STEPS.items():
            read = [weights.read(f"{MODEL}layers.{index}.{part}.weight") for part in parts]
            matrix = np.concatenate(read)
            started = time.process_time()
            factors = feedback(hessian(walk.inputs[:end], middle))
            took = {"factors": time.process_time() - started}
            for name, recipe in RECIPES.items():
                scheme = recipe.body(index, matrix.shape[1])
                assert scheme is not None
                started = time.process_time()
                rounded = (
                    compensate(matrix, factors, scheme) if recipe.calibrate else quantise(matrix, scheme)
                )
                took[name] = time.process_time() - started
                away = matrix - dequantise(rounded, scheme, matrix.shape[1])
                found[name][step].append(
                    (ratio(away, matrix), ratio(walk.inputs[end:] @ away.T, walk.inputs[end:] @ matrix.T))
                )
            started = time.process_time()
            getattr(walk, f"pass_{step}")(matrix)
            took["forward"] = time.process_time() - started
            print(f"layer {index} {step}, CPU seconds: {took}", file=sys.stderr, flush=True)
    return found


def start(checkpoint: Path, config: Config, weights: Weights, *, images: bool) -> tuple[States, int, int]:
    """The prompts' states before the first layer; where the second half begins, and what is kept apart."""
    asked = samples(checkpoint)
    given, apart = (
        [prompt for prompt in prompts if images or prompt.patches is None]
        for prompts in (asked.prompts, asked.held_out)
    )
    table = weights.read(f"{MODEL}embed_tokens.weight")
    with tempfile.TemporaryDirectory() as folder:
        if images:
            vision.write(Path(folder), weights, config.vision, Recipe())
        see = asked.load_tower(Path(folder)) if images else (lambda prompt: [])
        states = embed_prompts([*given[::2], *given[1::2], *apart], config, lambda ids: table[ids], see)
    return states, states.ends[len(given[::2]) - 1], states.ends[len(given) - 1]


def ratio(away: Matrix, whole: Matrix) -> float:
    """Of Frobenius norms."""
    return float(np.linalg.norm(away) / np.linalg.norm(whole))


def bits(recipe: Recipe, checkpoint: Path) -> float:
    """Bits of a weight of the first layer, its share of scales and zero points included."""
    config = Config.read(checkpoint).text
    queries = config.heads * config.head_dim
    sizes = [
        (config.hidden, queries + 2 * config.kv_heads * config.head_dim + 2 * config.intermediate),
        (queries, config.hidden),
        (config.intermediate, config.hidden),
    ]
    whole = 0.0
    for columns, rows in sizes:
        scheme = recipe.body(0, columns)
        assert scheme is not None
        each = 32 + (0 if scheme.symmetric else scheme.bits)
        whole += rows * (columns * scheme.bits + scheme.blocks(columns) * each)
    return whole / sum(columns * rows for columns, rows in sizes)


def compared(checkpoint: Path, recipe: Recipe) -> list[str]:
    """What `hybrid verify` finds with an 8-bit head, a float32 tower and the quick kernels."""
    chosen = replace(recipe, head_bits=8, vision_precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        export(checkpoint, Path(folder), chosen, None, samples(checkpoint) if recipe.calibrate else None)
        report = verify(
            checkpoint, Path(folder), "torch", Runtime(device="cpu", dtype="fp32"), lambda _: None
        )
    return [f"{report.divergence:.1e}", f"{report.top1:.1%}"]


if __name__ == "__main__":
    main()
