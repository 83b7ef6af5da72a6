"""The tower in another basis, where no channel stands out: the same function, easier to round to 8 bits.

Inputs that share a scale are rounded as coarsely as the largest of them asks for, and some channels can be
far larger than the others. An orthogonal matrix spreads each channel over all of them; it is folded into the
weights on both sides of the residual stream and cancels out. The idea is QuaRot's (arXiv 2404.00456), with a
basis that suits LayerNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.export.quantize import Matrix
from backends.export.vision.linear import Tensors
from backends.qwen3vl import VisionConfig

_Values: TypeAlias = NDArray[np.float32]


def basis(size: int) -> Matrix:
    """An orthogonal matrix [size, size] whose first column is constant: the cosine transform.

    The first coordinate of a value in this basis is its mean, times a constant: a LayerNorm drops it and
    divides by the root mean square of the others.
    """
    steps = np.arange(size)
    cosines = np.cos(np.pi / size * np.outer(steps + 0.5, steps)) * np.sqrt(2 / size)
    cosines[:, 0] = np.sqrt(1 / size)
    return np.asarray(cosines, np.float32)


class Rotated:
    """A checkpoint's tower with its residual stream, and each head's values, in another basis.

    The norms of the blocks and of the main merger have neither scale nor shift here: the matrices that read
    them do it. Rotary pairs stay as they are, and so do the DeepStack mergers and every hidden layer.
    """

    def __init__(self, tensors: Tensors, config: VisionConfig) -> None:
        self.turn = basis(config.hidden)  # [hidden, hidden]: x of the checkpoint is x @ turn here
        self._head_turn = basis(config.hidden // config.heads)
        self._tensors = tensors

    def expect(self, name: str, shape: tuple[int, ...]) -> None:
        """As ``Weights``: shapes are those of the checkpoint."""
        self._tensors.expect(name, shape)

    def read(self, name: str) -> _Values:
        """A tensor of the rotated tower, of the shape that the checkpoint's has."""
        stem, _, part = name.rpartition(".")
        change = next((change for end, change in _CHANGES.items() if stem.endswith(end)), None)
        return self._tensors.read(name) if change is None else change(self, stem, part)

    def _table(self, stem: str, part: str) -> _Values:
        return self._tensors.read(f"{stem}.{part}") @ self.turn

    def _out(self, stem: str, part: str) -> _Values:
        """A matrix, or its bias, that writes to the residual stream: [hidden, ...]."""
        values = self._tensors.read(f"{stem}.{part}")
        return (self.turn.T @ values.reshape(len(values), -1)).reshape(values.shape)

    def _attention_out(self, stem: str, part: str) -> _Values:
        values = self._out(stem, part)
        if part == "bias":
            return values
        return (values.reshape(-1, len(self._head_turn)) @ self._head_turn).reshape(values.shape)

    def _qkv(self, stem: str, part: str) -> _Values:
        values = self._after(stem, part, stem.removesuffix("attn.qkv") + "norm1")
        # the last third are the values; queries and keys are turned by position, in pairs that must stay
        third = values[2 * len(values) // 3 :]
        heads = third.reshape(-1, len(self._head_turn), third[0].size)
        third[:] = (self._head_turn.T @ heads).reshape(third.shape)
        return values

    def _mlp_in(self, stem: str, part: str) -> _Values:
        return self._after(stem, part, stem.removesuffix("mlp.linear_fc1") + "norm2")

    def _merger_in(self, stem: str, part: str) -> _Values:
        return self._after(stem, part, stem.removesuffix("linear_fc1") + "norm")

    def _after(self, stem: str, part: str, norm: str) -> _Values:
        """A matrix that reads what a norm gives, of one patch or of several side by side; or its bias."""
        matrix = self._tensors.read(f"{stem}.weight")
        patches = matrix.reshape(len(matrix), -1, len(self.turn))
        if part == "weight":
            scaled: _Values = patches * self._tensors.read(f"{norm}.weight")
            return (scaled.reshape(-1, len(self.turn)) @ self.turn).reshape(matrix.shape)
        shift: _Values = patches.sum(1) @ self._tensors.read(f"{norm}.bias")
        return self._tensors.read(f"{stem}.bias") + shift


# by how the name of a module ends; a module that is not here is as the checkpoint has it
_CHANGES: dict[str, Callable[[Any, str, str], _Values]] = {
    "visual.pos_embed": Rotated._table,
    ".patch_embed.proj": Rotated._out,
    ".attn.qkv": Rotated._qkv,
    ".attn.proj": Rotated._attention_out,
    ".mlp.linear_fc1": Rotated._mlp_in,
    ".mlp.linear_fc2": Rotated._out,
    "visual.merger.linear_fc1": Rotated._merger_in,
}
