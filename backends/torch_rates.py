"""How fast PyTorch multiplies bfloat16 matrices here: onnxruntime has no kernel for them on a processor."""

from __future__ import annotations

import torch

from backends.rates import COLUMNS, INNER, OPERATIONS, ROWS, least_seconds

_SMALL = 256  # rows and columns of the product that is tried first
_SLOW = 1e10  # operations per second


def bf16_rate(threads: int) -> float:
    """Operations per second, a multiplication and an addition being two."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        # a processor without instructions for them takes a minute for the whole product
        small = 2 * _SMALL**3 / _seconds(_SMALL, _SMALL, _SMALL)
        return small if small < _SLOW else OPERATIONS / _seconds(ROWS, INNER, COLUMNS)


def _seconds(rows: int, inner: int, columns: int) -> float:
    x = torch.randn(rows, inner).to(torch.bfloat16)
    matrix = torch.randn(inner, columns).to(torch.bfloat16)
    return least_seconds(lambda: x @ matrix)
