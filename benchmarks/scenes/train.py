"""Trains `scenes` on a CPU: python -m benchmarks.scenes.train --minutes 75 --out RUN_FOLDER

Writes RUN_FOLDER/state.pt every few minutes; the same command resumes a run that was stopped.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.scenes import tokenizer as tokens
from benchmarks.scenes.batch import HINTS, Batch, picture_batch, text_batch
from benchmarks.scenes.exam import exam
from benchmarks.scenes.folder import write
from benchmarks.scenes.model import TEXT, build, read, see
from benchmarks.scenes.muon import Muon, Run

# each thread has its own batch: on a busy machine threads that share operations wait for each other
THREADS = 2
EASY_STEPS = 350  # colours, quadrants and bands on small pictures come first
TEXT_EVERY = 12  # every so many steps the batch has no pictures


class Lessons(IterableDataset[list[Batch]]):  # type: ignore[misc]
    """Endless batches; batch number n depends on the seed and n alone."""

    def __init__(self, tokenizer: Tokenizer, seed: int, size: int, start: int) -> None:
        self.tokenizer, self.seed, self.size, self.start = tokenizer, seed, size, start

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yields each step's batches, one per thread, from the start step on."""
        torch.set_num_threads(1)
        step = self.start
        while True:
            yield [self._batch(step, Random(f"{self.seed} {step} {part}")) for part in range(THREADS)]
            step += 1

    def _batch(self, step: int, random: Random) -> Batch:
        if step % TEXT_EVERY == TEXT_EVERY - 1:
            return text_batch(self.tokenizer, random, self.size)
        return picture_batch(self.tokenizer, random, self.size, easy=step < EASY_STEPS)


def main() -> None:
    """Reads the options and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16, help="conversations per thread and step")
    parser.add_argument("--rate", type=float, default=0.02, help="Muon's; AdamW's is a tenth")
    parser.add_argument("--report", type=float, default=6, help="minutes between reports")
    Trainer(parser.parse_args()).run()


class Trainer:
    """One run: model, auxiliary head, optimizers and the seconds trained so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(THREADS, initializer=_begin_thread)
        torch.set_flush_denormal(True)
        self.options = options
        self.tokenizer = _tokenizer(options.out)
        self.model = build()
        self.head = nn.Linear(4 * TEXT["hidden_size"], HINTS)  # type: ignore[operator]
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizers = _optimizers(self.model, self.head, options.rate, self.pool.map)
        self.seconds, self.step = 0.0, 0
        self.state = options.out / "state.pt"
        if self.state.exists():
            self._resume()

    def run(self) -> None:
        """Trains until the minutes are spent, then writes the model folder."""
        lessons = Lessons(self.tokenizer, self.options.seed, self.options.batch, self.step)
        sums: dict[str, list[float]] = defaultdict(list)
        reported = self.seconds
        loader = DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=6)
        last = time.monotonic()
        for batches in loader:
            self._learn(batches, sums)
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if self.seconds - reported > self.options.report * 60:
                self._report(sums)
                reported, last = self.seconds, time.monotonic()
            if self.seconds >= self.options.minutes * 60:
                break
        self._report(sums)

    def _learn(self, batches: list[Batch], sums: dict[str, list[float]]) -> None:
        progress = self.seconds / (self.options.minutes * 60)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _rate(self.step, progress)
        found = list(self.pool.map(self._gradients, batches))
        for parameter, *parts in zip(self.parameters, *(gradients for _, _, gradients in found), strict=True):
            parameter.grad = torch.stack(parts).mean(0)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        for batch, (answer, hint, _) in zip(batches, found, strict=True):
            sums["answer" if batch.slots is not None else "chat"].append(answer)
            sums["hint"].append(hint)

    def _gradients(self, batch: Batch) -> tuple[float, float, tuple[Tensor, ...]]:
        answer, hint = losses(self.model, self.head, batch)
        total = answer + 0.5 * hint
        gradients = torch.autograd.grad(total, self.parameters, materialize_grads=True, allow_unused=True)
        return answer.item(), hint.item(), gradients

    def _report(self, sums: dict[str, list[float]]) -> None:
        means = {name: round(sum(values) / max(1, len(values)), 4) for name, values in sums.items()}
        sums.clear()
        print(f"step {self.step} minute {self.seconds / 60:.1f} {means}", flush=True)
        print("   ", exam(self.model, self.tokenizer, Random(7), 32), flush=True)
        state = {
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "seconds": self.seconds,
            "step": self.step,
        }
        torch.save(state, self.state.with_suffix(".new"))
        self.state.with_suffix(".new").replace(self.state)
        write(self.options.out / "model", self.model, self.tokenizer)

    def _resume(self) -> None:
        state = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.seconds, self.step = state["seconds"], state["step"]


def _tokenizer(out: Path) -> Tokenizer:
    """The run's own tokenizer: a resumed run must not train another one."""
    kept = out / "tokenizer.json"
    if not kept.exists():
        out.mkdir(parents=True, exist_ok=True)
        tokens.train().save(str(kept))
    return Tokenizer.from_file(str(kept))


def losses(model: Any, head: nn.Linear, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the assistant's tokens and of the auxiliary hints."""
    features: list[Tensor] = []
    hint = torch.zeros(())
    if batch.patches is not None and batch.hints is not None:
        features = see(model.model.visual, batch.patches, batch.grid)
        guess = head(torch.cat(features, -1))
        hint = functional.binary_cross_entropy_with_logits(guess, batch.hints) * 0.3 * HINTS
    hidden = read(model.model.language_model, batch.ids, batch.positions, batch.slots, features)
    asked = batch.targets >= 0
    logits = functional.linear(hidden[asked], model.lm_head.weight)
    return functional.cross_entropy(logits, batch.targets[asked]), hint


def _begin_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _rate(step: int, progress: float) -> float:
    """Warm up over 60 steps, hold, then fall linearly to zero over the last half of the time."""
    return min(1.0, (step + 1) / 60) * min(1.0, max(0.0, (1 - progress) / 0.5))


def _optimizers(model: Any, head: nn.Linear, rate: float, run: Run) -> list[torch.optim.Optimizer]:
    matrices: list[Tensor] = []
    others: list[Tensor] = list(head.parameters())
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if hidden else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=rate / 10, betas=(0.9, 0.98), weight_decay=0.0),
        Muon(matrices, lr=rate, run=run),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


if __name__ == "__main__":
    main()
