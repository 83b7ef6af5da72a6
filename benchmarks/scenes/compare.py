"""Scores the embedded model on several backends: python -m benchmarks.scenes.compare --count 50

The scenes are the same for all. Everything runs through the router, greedily; an answer counts when its text
is exactly the true one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from random import Random

import numpy as np

from benchmarks.scenes.exam import ROWS
from benchmarks.scenes.score import case
from router import Message, Request, Router, Runtime, from_pil

BACKENDS = {
    "torch fp32": ("torch", Runtime(dtype="fp32")),
    "torch bf16": ("torch", Runtime(dtype="bf16")),
    "onnx int4": ("onnx", Runtime()),
    "onnx int4, PyTorch vision": ("onnx", Runtime(vision="torch")),
}


def main() -> None:
    """Reads the options and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="scenes per family and order")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rows = {f"{kind} | {family}": _asked(kind, family, options.seed, options.count) for kind, family in ROWS}
    print(
        f"Held-out wordings, {2 * options.count} fresh scenes a cell, both orders, percent exactly right.\n"
    )
    print(f"| scene | question | {' | '.join(BACKENDS)} |")
    print("|---|---|" + "---|" * len(BACKENDS))
    routers = [
        (name, Router("scenes", replace(runtime, threads=options.threads)))
        for name, runtime in BACKENDS.values()
    ]
    totals = []
    for label, asked in rows.items():
        shares = [_share(router, name, asked) for name, router in routers]
        totals.append(shares)
        print(f"| {label} | {' | '.join(f'{share:.1f}' for share in shares)} |", flush=True)
    print(f"| all | | {' | '.join(f'{share:.1f}' for share in np.mean(totals, 0))} |")


def _asked(kind: str, family: str, seed: int, count: int) -> list[tuple[Message, str]]:
    """Questions in both orders, and their true answers."""
    random = Random(f"{seed} {kind} {family}")
    asked = []
    for _ in range(count):
        shown, (question, answer) = case(kind, family, random)
        picture = from_pil(shown.picture)
        asked += [
            (Message.of("user", picture, question), answer),
            (Message.of("user", question, picture), answer),
        ]
    return asked


def _share(router: Router, backend: str, asked: list[tuple[Message, str]]) -> float:
    right = [
        router.complete(Request((message,), backend=backend)).text == answer for message, answer in asked
    ]
    return 100 * sum(right) / len(right)


if __name__ == "__main__":
    main()
