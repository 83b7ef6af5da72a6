"""What a step costs that gives one token to each of several sessions: the onnx backend's decoder by itself.

::

    python -m benchmarks.batch EXPORT --threads 2

Row counts take turns; the table has medians, and what all rows together come to.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from backends.base import Runtime
from backends.machine import Processor
from backends.onnx.decoder import Decoder

ROWS = (1, 2, 4, 8)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="EXPORT")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=128, help="tokens that every session holds before")
    parser.add_argument("-r", "--repeats", type=int, default=15)
    options = parser.parse_args()
    decoder = Decoder(options.folder, Runtime(device="cpu", threads=options.threads))
    store = decoder.store(max(ROWS), options.context + 1)
    bindings = {rows: decoder.bind([array[:rows] for array in store.arrays]) for rows in ROWS}
    seconds: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for turn in range(options.repeats + 1):
        for rows, binding in bindings.items():
            taken = measure(decoder, binding, rows, options.context)
            if turn:  # the first warms up
                seconds[rows].append(taken)
    print(f"{Processor.read().name}, {options.threads} threads, {options.context} tokens of context\n")
    print("| rows | ms a step | tok/s in all | times one row's |\n|---|---|---|---|")
    alone = float(np.median(seconds[1]))
    for rows in ROWS:
        step = float(np.median(seconds[rows]))
        print(f"| {rows} | {step * 1e3:.0f} | {rows / step:.1f} | {rows * alone / step:.2f} |")


def measure(decoder: Decoder, binding: object, rows: int, context: int) -> float:
    """Seconds of one step."""
    embeddings = np.random.default_rng(rows).standard_normal((rows, 1, decoder.hidden), np.float32) * 0.02
    started = time.perf_counter()
    decoder.step(
        binding,
        embeddings.astype(np.float32),
        np.full((3, rows, 1), context),
        np.full(rows, context),
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
