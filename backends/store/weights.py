"""Weights on disk: a checkpoint's tensors, one at a time as float32, and codes of a few bits as bytes.

Checkpoints are safetensors: 8 bytes with the length of a JSON header, the header, the data. Exports hold
codes: the earlier of those that share a byte are in its lower bits.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own cap for its JSON header
_STORED: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}

Progress: TypeAlias = Callable[[str, int, int], None]  # tensor, bytes read so far, bytes of the checkpoint


@dataclass(frozen=True)
class _Tensor:
    file: Path
    stored: str  # BF16, F16 or F32
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _STORED[self.stored].itemsize


class Weights:
    """The tensors of a checkpoint folder, one file or several behind an index; nothing is kept in memory."""

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        """Read the headers only; BackendError ``model_invalid`` names a file that is missing or damaged.

        ``progress`` is told of each read as it starts; a part that is read twice counts once.
        """
        self.folder = folder
        self._progress = progress
        self._bytes_read: dict[str, int] = {}  # bytes from the start of each tensor
        self._tensors: dict[str, _Tensor] = {}
        for file in _files(folder):
            self._tensors.update(_header(file))

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order of their files."""
        return tuple(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; BackendError ``model_invalid`` where there is none of that name."""
        return self._tensor(name).shape

    def nbytes(self, name: str) -> int:
        """How many bytes a tensor takes in its file."""
        return self._tensor(name).nbytes

    def read(self, name: str, rows: slice | None = None) -> NDArray[np.float32]:
        """A tensor as float32, or only those ``rows`` of its first axis; the array is the caller's own."""
        tensor = self._tensor(name)
        shape = tensor.shape
        first = 0
        if rows is not None:
            first, stop, _ = rows.indices(shape[0])
            shape = (max(stop - first, 0), *shape[1:])
        stored = _STORED[tensor.stored]
        start = first * math.prod(shape[1:]) * stored.itemsize
        count = math.prod(shape)
        self._report(name, start + count * stored.itemsize)
        # read, not mapped: the pages of a mapped file count as this process's memory
        raw = np.fromfile(tensor.file, stored, count, offset=tensor.offset + start)
        if raw.size != count:
            raise _damaged(tensor.file, f"'{name}' is cut short")
        return _float32(raw, tensor.stored).reshape(shape)

    def expect(self, name: str, shape: tuple[int, ...]) -> None:
        """BackendError ``model_invalid`` unless there is a tensor ``name`` of this shape."""
        if self.shape(name) != shape:
            raise BackendError(
                f"{self.folder}: '{name}' has shape {list(self.shape(name))}, "
                f"config.json asks for {list(shape)}",
                code="model_invalid",
            )

    def _report(self, name: str, end: int) -> None:
        self._bytes_read[name] = max(end, self._bytes_read.get(name, 0))
        if self._progress is not None:
            total = sum(tensor.nbytes for tensor in self._tensors.values())
            self._progress(name, sum(self._bytes_read.values()), total)

    def _tensor(self, name: str) -> _Tensor:
        if (tensor := self._tensors.get(name)) is None:
            raise BackendError(
                f"{self.folder} has no tensor '{name}': it is not a whole Qwen3-VL checkpoint",
                code="model_invalid",
            )
        return tensor


def _float32(raw: NDArray[Any], stored: str) -> NDArray[np.float32]:
    if stored == "BF16":
        # bfloat16 is the upper half of a float32
        wide = raw.astype("<u4")
        wide <<= 16
        return wide.view(np.float32)
    return raw.astype(np.float32, copy=False)


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    files = [folder / name for name in _named(index)] if index.is_file() else [folder / SINGLE]
    for file in files:
        if not file.is_file():
            raise BackendError(
                f"{file} is missing; only safetensors weights are loaded, download the checkpoint again",
                code="model_invalid",
            )
    return files


def _named(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(index, "it names no files") from None
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise _damaged(index, "it must name files of its own folder")
    return names


def _header(file: Path) -> dict[str, _Tensor]:
    """The tensors of one file."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_HEADER_LIMIT, size - 8):
                raise _damaged(file, f"{size} bytes, without a whole header")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        whole = 8 + length + max(entry["data_offsets"][1] for entry in entries.values())
        if size != whole:
            raise _damaged(file, f"{size} bytes, {whole} expected")
        return {name: _entry(file, name, entry, 8 + length, size) for name, entry in entries.items()}
    except OSError as error:
        raise BackendError(f"{file} cannot be read: {error.strerror}", code="model_invalid") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(file, "its header cannot be read") from None


def _entry(file: Path, name: str, entry: dict[str, Any], data: int, size: int) -> _Tensor:
    stored = entry["dtype"]
    if stored not in _STORED:
        raise BackendError(
            f"{file}: '{name}' is stored as {stored}; "
            "use a checkpoint with bfloat16, float16 or float32 weights",
            code="model_invalid",
        )
    first, end = entry["data_offsets"]
    tensor = _Tensor(file, stored, tuple(int(side) for side in entry["shape"]), data + int(first))
    if min(tensor.shape, default=0) < 0 or first < 0 or end - first != tensor.nbytes or data + end > size:
        raise _damaged(file, f"'{name}' does not fit its place")
    return tensor


def _damaged(file: Path, problem: str) -> BackendError:
    return BackendError(f"{file} is damaged ({problem}); download it again", code="model_invalid")


def pack_codes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes of ``bits`` along the last axis -> bytes; two of 4 bits share one, or four of 2."""
    if bits > 4:
        return codes
    share = 8 // bits  # codes in a byte
    if missing := -codes.shape[-1] % share:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    packed = codes[..., 0::share].copy()
    for place in range(1, share):
        packed |= codes[..., place::share] << np.uint8(place * bits)
    return packed


def unpack_codes(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The codes along the last axis; those that fill the last byte up are there too."""
    if bits > 4:
        return packed
    mask = np.uint8((1 << bits) - 1)
    codes = [(packed >> np.uint8(place)) & mask for place in range(0, 8, bits)]
    return np.stack(codes, -1).reshape(*packed.shape[:-1], -1)
