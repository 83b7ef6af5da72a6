"""Weights on disk: a checkpoint's tensors, one at a time as float32, and codes of a few bits as bytes.

`Weights` decides which tensors a model is made of, for every backend and for exports, and checks every value
that it reads. Exports hold codes: the earlier of those that share a byte are in its lower bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError
from backends.store.tensors import (
    HEAD,
    INDEX,
    SINGLE,
    STORED,
    TABLE,
    StoredTensor,
    by_full_name,
    check_plain,
    check_plain_names,
    config_values,
    damaged,
    shards,
    stored_tensors,
    weight_files,
)

Progress: TypeAlias = Callable[[str, int, int], None]  # tensor, bytes read so far, bytes of the checkpoint

_CHECKED = 1 << 20  # values checked at once
# by bytes of a value: the exponent's bits, all of which are set in what is no finite number
_EXPONENTS = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F80_0000}
_BITS: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


class Weights:
    """The tensors of a checkpoint folder by their names in the whole model; nothing is kept in memory.

    Which those are is decided as transformers decides it: the file, the names, and which matrix gives the
    scores. What it leaves out although it would change an answer is in `notices`.
    """

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        """Read the headers only; BackendError ``model_invalid`` names what is missing, damaged or quantised.

        ``progress`` is told of each read as it starts; a part that is read twice counts once.
        """
        check_plain(folder)
        self.folder = folder
        self._progress = progress
        self._bytes_read: dict[str, int] = {}  # bytes from the start of each tensor
        self._tensors, self._left_out = by_full_name(stored_tensors(weight_files(folder)))
        check_plain_names(folder, self._tensors)
        # transformers reads the top's word alone, not that of text_config
        self._tied = config_values(folder).get("tie_word_embeddings") is True
        if self._tied and HEAD in self._tensors and TABLE not in self._tensors:
            self._tensors[TABLE] = self._tensors.pop(HEAD)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order of their files."""
        return tuple(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @cached_property
    def ties_head(self) -> bool:
        """Whether the embedding table gives the scores.

        It does where config.json says so, unless there is another ``lm_head.weight``; to know that, both are
        read.
        """
        return self._tied and (HEAD not in self or self._same(self._tensors[HEAD], self._tensors[TABLE]))

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """What is left out, or read in spite of config.json, and matters: a sentence each."""
        found = []
        if others := _passed_over(self.folder):
            found.append(f"{self.folder}: {SINGLE} is read, and not {', '.join(others)}, which {INDEX} names")
        if self._tied and not self.ties_head:
            found.append(
                f"{self.folder}: {HEAD} is another matrix than the embeddings, and is used, although "
                "config.json says tie_word_embeddings"
            )
        for left in self._left_out:
            name, _ = next(iter(by_full_name([left])[0].items()))
            if not self._same(left, self._tensors[name]):
                found.append(f"{self.folder}: '{self._tensors[name].name}' is read, and not '{left.name}'")
        return tuple(found)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors that can be read, which may be more than a model needs."""
        return {name: each.shape for name, each in self._tensors.items() if each.stored in STORED}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; BackendError ``model_invalid`` where there is none of that name."""
        return self._tensor(name).shape

    def nbytes(self, name: str) -> int:
        """How many bytes a tensor takes in its file."""
        return self._tensor(name).nbytes

    def read(self, name: str, rows: slice | None = None) -> NDArray[np.float32]:
        """A tensor as float32, or only those ``rows`` of its first axis; the array is the caller's own.

        BackendError ``model_invalid``: a value is not a finite number.
        """
        raw, stored = self.read_stored(name, rows)
        return _float32(raw, stored)

    def read_stored(self, name: str, rows: slice | None = None) -> tuple[NDArray[Any], str]:
        """As `read`, in the number format of the file, and its name; BF16 comes as its bits, F64 as F32."""
        tensor = self._tensor(name)
        part, start = _part(tensor, rows)
        self._report(name, start + math.prod(part) * STORED[tensor.stored].itemsize)
        return _read(tensor, rows)

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

    def _same(self, one: StoredTensor, other: StoredTensor) -> bool:
        """Whether two tensors have the same values."""
        if one.shape != other.shape:
            return False
        pairs = zip(_pieces(one), _pieces(other), strict=True)
        return all(np.array_equal(_float32(*first), _float32(*second)) for first, second in pairs)

    def _tensor(self, name: str) -> StoredTensor:
        if (tensor := self._tensors.get(name)) is None:
            raise BackendError(
                f"{self.folder} has no tensor '{name}': it is not a whole Qwen3-VL checkpoint"
                + (", or config.json lacks tie_word_embeddings at its top" if name == HEAD else ""),
                code="model_invalid",
            )
        if tensor.stored not in STORED:
            raise BackendError(
                f"{tensor.file}: '{tensor.name}' is stored as {tensor.stored}; "
                "use a checkpoint with bfloat16, float16 or float32 weights",
                code="model_invalid",
            )
        return tensor


def _passed_over(folder: Path) -> list[str]:
    """The shards of an earlier save that are still beside the file which is read."""
    if not (folder / INDEX).is_file() or weight_files(folder) != [folder / SINGLE]:
        return []
    try:
        return [name for name in shards(folder / INDEX) if name != SINGLE and (folder / name).is_file()]
    except BackendError:
        return []  # nobody reads that index


def _part(tensor: StoredTensor, rows: slice | None) -> tuple[tuple[int, ...], int]:
    """The shape of those rows, and how many bytes of the tensor stand before them."""
    if rows is None:
        return tensor.shape, 0
    first, stop, _ = rows.indices(tensor.shape[0])
    shape = (max(stop - first, 0), *tensor.shape[1:])
    return shape, first * math.prod(shape[1:]) * STORED[tensor.stored].itemsize


def _read(tensor: StoredTensor, rows: slice | None) -> tuple[NDArray[Any], str]:
    shape, start = _part(tensor, rows)
    count = math.prod(shape)
    # read, not mapped: the pages of a mapped file count as this process's memory
    raw = np.fromfile(tensor.file, STORED[tensor.stored], count, offset=tensor.offset + start)
    if raw.size != count:
        raise damaged(tensor.file, f"'{tensor.name}' is cut short")
    stored = tensor.stored
    if stored == "F64":
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            raw, stored = raw.astype(np.float32), "F32"
    _check_finite(tensor, raw, _EXPONENTS[stored])
    return raw.reshape(shape), stored


def _pieces(tensor: StoredTensor) -> Iterator[tuple[NDArray[Any], str]]:
    """A tensor of two axes, some rows at a time."""
    step = max(1, _CHECKED // max(1, math.prod(tensor.shape[1:])))
    if not tensor.shape:
        yield _read(tensor, None)
        return
    for first in range(0, tensor.shape[0], step):
        yield _read(tensor, slice(first, first + step))


def _check_finite(tensor: StoredTensor, raw: NDArray[Any], exponent: int) -> None:
    bits = raw.view(_BITS[raw.itemsize])
    for first in range(0, bits.size, _CHECKED):
        if ((bits[first : first + _CHECKED] & exponent) == exponent).any():
            raise BackendError(
                f"{tensor.file}: '{tensor.name}' holds values that are not finite numbers; "
                "download the checkpoint again",
                code="model_invalid",
            )


def _float32(raw: NDArray[Any], stored: str) -> NDArray[np.float32]:
    if stored == "BF16":
        # bfloat16 is the upper half of a float32
        wide = raw.astype("<u4")
        wide <<= 16
        return wide.view(np.float32)
    return raw.astype(np.float32, copy=False)


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
