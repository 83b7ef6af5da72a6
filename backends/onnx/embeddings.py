"""Token embeddings, gathered from the mapped weights file: rows that are not asked for are never read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError
from backends.store import unpack_codes


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The table of a model, in float32 or rounded blockwise as ``backends.export.quantize`` says."""

    values: NDArray[Any]  # float32 [rows, columns], or bytes [rows, blocks, bytes of a block]
    scales: NDArray[np.float32] | None  # [rows, blocks]
    zeros: NDArray[np.uint8] | None  # [rows, bytes]
    bits: int
    columns: int
    rest: NDArray[np.uint8] | None = (
        None  # bytes [rows, blocks, bytes of a block]: further bits, where there are
    )
    rest_bits: int = 0

    @classmethod
    def read(cls, folder: Path, note: str) -> Embeddings:
        """Map the table that decoder.onnx's ``embeddings`` entry describes; BackendError if it cannot be."""
        try:
            entry = json.loads(note)
            file = folder / Path(entry["file"]).name
            rows, columns, bits = entry["rows"], entry["columns"], entry["bits"]
            if bits == 32:
                values = np.memmap(file, np.float32, "r", entry["values"], (rows, columns))
                return cls(values, None, None, bits, columns)
            block = entry["block"]
            blocks = -(-columns // block)
            rest = entry.get("rest", {"bits": 0})

            def codes(values: int, bits: int) -> NDArray[np.uint8]:
                return np.memmap(file, np.uint8, "r", values, (rows, blocks, block * bits // 8))

            return cls(
                codes(entry["values"], bits),
                np.memmap(file, np.float32, "r", entry["scales"], (rows, blocks)),
                np.memmap(file, np.uint8, "r", entry["zeros"], (rows, -(-blocks * bits // 8)))
                if "zeros" in entry
                else None,
                bits,
                columns,
                codes(rest["values"], rest["bits"]) if rest["bits"] else None,
                rest["bits"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackendError(
                f"{folder}: the token embeddings cannot be read ({error}); export the model again",
                code="model_invalid",
            ) from None

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings [tokens, columns] of ``ids`` [tokens]; the array is the caller's own."""
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self.values):
            raise BackendError(
                f"a token id is outside 0 to {len(self.values) - 1}", code="internal_inconsistency"
            )
        # a plain array, so that what is computed from it is no map either
        values = np.asarray(self.values[ids])
        if self.scales is None:
            return np.asarray(values, np.float32)
        codes = unpack_codes(values, self.bits).astype(np.float32)
        if self.zeros is None:
            codes -= np.float32(1 << (self.bits - 1))
        else:
            zeros = unpack_codes(np.asarray(self.zeros[ids]), self.bits)
            codes -= zeros[:, : codes.shape[1], None].astype(np.float32)
        scales = np.asarray(self.scales[ids])[..., None]
        codes *= scales
        if self.rest is not None:
            further = unpack_codes(np.asarray(self.rest[ids]), self.rest_bits).astype(np.float32)
            steps = np.float32(1 << self.rest_bits)
            # each product by itself, as text.onnx does: the sums are then the same to the bit
            codes += (further - steps / 2) * scales / steps
        return np.ascontiguousarray(codes.reshape(len(ids), -1)[:, : self.columns])
