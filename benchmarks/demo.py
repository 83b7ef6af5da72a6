"""Four questions, each to every backend: greedy text, and three drawn images at rising temperatures.

    python -m benchmarks.demo                    # the embedded model
    python -m benchmarks.demo -m ./qwen3-vl-2b

Each answer is printed as it comes; a table of all of them follows. The same seed is used everywhere, so
backends that hold the same weights say the same as long as their scores round to the same choices.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from router import (
    BackendError,
    Completion,
    Message,
    Picture,
    Request,
    RequestError,
    Router,
    Runtime,
    Sampling,
)
from router.router import join

BACKENDS = ("torch", "onnx", "genai")
SEED = 7


@dataclass(frozen=True)
class Scenario:
    """A question, with or without an image, and how it is answered."""

    name: str
    question: str
    sampling: Sampling
    image: Picture | None = None

    @property
    def message(self) -> Message:
        """What the model is asked."""
        images = () if self.image is None else (self.image,)
        return Message.of("user", *images, self.question)


def gradient(side: int = 224) -> Picture:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[:side, :side] * 255 // (side - 1)
    return Picture(np.stack([x, y, np.full_like(x, 128)], -1).astype(np.uint8))


def colours(side: int = 224) -> Picture:
    """A red, a green, a blue and a yellow quarter."""
    four = np.array([[[255, 0, 0], [0, 128, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
    return Picture(four.repeat(side // 2, 0).repeat(side // 2, 1))


def checkerboard(side: int = 224, squares: int = 8) -> Picture:
    """Black and white squares."""
    y, x = np.mgrid[:squares, :squares]
    board = ((x + y) % 2 * 255).astype(np.uint8).repeat(side // squares, 0).repeat(side // squares, 1)
    return Picture(board[..., None].repeat(3, -1))


SCENARIOS = (
    Scenario("text, greedy", "What can you do?", Sampling(temperature=0.0)),
    Scenario("gradient, sampled", "Describe this image.", Sampling(temperature=0.7, top_p=0.9), gradient()),
    Scenario("colours, low temperature", "Which colours do you see?", Sampling(temperature=0.2), colours()),
    Scenario("checkerboard, high temperature", "What do you see?", Sampling(temperature=1.3), checkerboard()),
)


def ask(router: Router, scenario: Scenario, backend: str, max_tokens: int, console: Console) -> Completion:
    """One answer, printed as it comes."""
    sampling = replace(scenario.sampling, seed=SEED, max_tokens=max_tokens)
    answer = router.answer(Request((scenario.message,), sampling, backend))
    chunks = []
    with closing(answer.chunks) as stream:
        for chunk in stream:
            chunks.append(chunk)
            console.print(chunk.text, end="", markup=False, highlight=False)
    console.print()
    return join(chunks, answer.decision)


def row(scenario: Scenario, backend: str, done: Completion | Exception) -> tuple[str, ...]:
    """One line of the table; of a backend that did not answer, why."""
    if isinstance(done, Exception):
        return scenario.name, backend, "", "", "", "", str(done).partition(";")[0]
    stats = done.stats
    speed = f"{stats.tokens_per_second:.1f}" if stats.tokens_per_second else ""
    counts = str(stats.prompt_tokens), str(stats.output_tokens)
    return scenario.name, backend, *counts, f"{stats.first_token_seconds:.2f}", speed, done.text


def table(rows: Sequence[tuple[str, ...]]) -> Table:
    """The answers and what they took."""
    made = Table("scenario", "backend")
    for column in ("prompt", "output", "TTFT s", "tok/s"):
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column("answer")
    for number, (scenario, *cells) in enumerate(rows):
        first = number % len(BACKENDS) == 0
        made.add_row(
            scenario if first else "", *cells, end_section=number % len(BACKENDS) == len(BACKENDS) - 1
        )
    return made


def main() -> None:
    """Ask everything, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-m", "--model", help="a checkpoint folder or hub id; the embedded model by default")
    parser.add_argument("-n", "--max-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    console, rows = Console(), []
    router = Router(options.model, Runtime(threads=options.threads))
    for scenario in SCENARIOS:
        for backend in BACKENDS:
            console.print(f"[bold]{scenario.name}[/bold] on {backend}: {scenario.question}")
            try:
                done: Completion | Exception = ask(router, scenario, backend, options.max_tokens, console)
            except (RequestError, BackendError) as error:
                done = error
                console.print(str(error), markup=False, highlight=False)
            rows.append(row(scenario, backend, done))
    console.print(table(rows))


if __name__ == "__main__":
    main()
