"""Muon (orthogonalised momentum) in float32: torch.optim.Muon works in bfloat16, slow on CPUs without it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

Run = Callable[..., Iterator[Any]]  # `map`, or one that uses several threads
COEFFICIENTS = (3.4445, -4.775, 2.0315)


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum steps for matrices [out, in], orthogonalised by five Newton-Schulz rounds, one per shape."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, run: Run, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "decay": 0.02})
        self.run = run

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Takes one step for every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            largest_first = sorted(alike.values(), key=lambda some: -some[0].numel())
            list(self.run(lambda some, group=group: self._move(some, group), largest_first))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _move(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        moved = torch.stack([self._momentum(matrix, group["momentum"]) for matrix in matrices])
        scale = group["lr"] * max(1.0, moved.shape[1] / moved.shape[2]) ** 0.5
        for matrix, update in zip(matrices, orthogonal(moved), strict=True):
            matrix.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-scale)

    def _momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        state = self.state[matrix]
        gradient = matrix.grad
        assert gradient is not None
        average = state.setdefault("momentum", torch.zeros_like(matrix))
        average.lerp_(gradient, 1 - momentum)
        nesterov: Tensor = gradient.lerp(average, momentum)
        return nesterov


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [count, out, in] with singular values brought near one (Newton-Schulz, five rounds)."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
