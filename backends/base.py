"""The contract every backend keeps: a prompt goes in, the scores of the next token come out.

::

    RequestError          the caller's to fix
    BackendError          the set-up's fault
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Logits: TypeAlias = NDArray[np.float32]  # [vocab]: scores for the next token only
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
DType: TypeAlias = Literal["auto", "bf16", "fp32"]
Vision: TypeAlias = Literal["onnx", "torch"]


class RequestError(Exception):
    """What was asked cannot be served, and the caller can change it.

    ``code`` is a stable word for programs (``invalid_image``, ``context_length_exceeded`` ...), ``param`` the
    name of the field at fault, if there is one.
    """

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class BackendError(Exception):
    """The machine, the installation or the model's files cannot do what they should.

    ``code`` is a stable word for programs: ``backend_error``, ``model_invalid``, ``numerical_error`` ...
    """

    def __init__(self, message: str, *, code: str = "backend_error") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, eq=False)
class Prompt:
    """Token ids, and the images' patches with the places in the ids that they fill."""

    ids: NDArray[np.int64]  # [tokens]
    patches: NDArray[np.float32] | None = None  # [patches, values of one], images one after the other
    grid: NDArray[np.int64] | None = None  # [images, 3]: t, h, w in patches
    spans: NDArray[np.int64] | None = None  # [images, 2]: first pad and one past the last pad in ids
    sizes: tuple[tuple[int, int], ...] = ()  # width and height in pixels at which each image is read

    @property
    def image_tokens(self) -> int:
        """How many of the ids are places for image features."""
        return 0 if self.spans is None else int((self.spans[:, 1] - self.spans[:, 0]).sum())

    @property
    def images(self) -> int:
        """How many images it has."""
        return 0 if self.grid is None else len(self.grid)

    def after(self, tokens: int) -> Prompt:
        """What follows the first ``tokens``, which cut through no image; places count from there."""
        if self.spans is None or self.grid is None or self.patches is None:
            return Prompt(self.ids[tokens:])
        unread = self.spans[:, 0] >= tokens
        if not unread.any():
            return Prompt(self.ids[tokens:])
        rows = np.repeat(unread, self.grid.prod(1))
        patches = self.patches if unread.all() else self.patches[rows]
        sizes = tuple(compress(self.sizes, unread))
        return Prompt(self.ids[tokens:], patches, self.grid[unread], self.spans[unread] - tokens, sizes)


@dataclass(frozen=True, eq=False)
class Prefilled:
    """What reading a prompt gave, and what of it was not to be done again."""

    logits: Logits  # of the token after the prompt
    vision_seconds: float = 0.0  # spent on encoding images
    cached_tokens: int = 0  # of the prompt, found in a cache and not read
    cached_images: int = 0  # of the prompt, not encoded


@dataclass(frozen=True)
class Traits:
    """What a backend is, on every machine and for every model."""

    sees_images: bool
    reads_export: bool = False  # its model folder is an export, not a checkpoint
    decodes_together: bool = False  # tokens of several answers in one run, for little more than those of one
    for_tests: bool = False  # it computes nothing: it answers whom names it, and is not shown to others


@dataclass(frozen=True)
class Capability:
    """What a backend can do on one machine, known without loading it."""

    traits: Traits
    problem: str | None = None  # why it cannot be used there, in words; None when it can


@dataclass(frozen=True)
class Runtime:
    """Where and how a backend computes; each reads what concerns it."""

    device: Device = "auto"
    dtype: DType = "auto"  # of PyTorch's weights
    threads: int | None = None  # None: the library's own choice
    vision: Vision = "onnx"  # what encodes images for the onnx backend
    checkpoint: Path | None = None  # what the model's export was made from; PyTorch's vision reads it
    packed: Path | None = None  # the export's packed variant: its weights are mapped, not copied
    kept_bytes: int = 1 << 30  # for caches of ended generations, so that a follow-up reads only what is new


class Session(Protocol):
    """One generation: it owns the cache, and sessions of one backend do not see each other."""

    def prefill(self, prompt: Prompt) -> Prefilled:
        """Read a whole prompt; the scores are those of the token after it."""
        ...

    def decode(self, token: int) -> Logits:
        """Append one token; return the scores of the next."""
        ...

    def close(self) -> None:
        """Free the cache; a closed session is not used again, and closing it once more does nothing.

        It may come from another thread while the session computes. A backend that can stop then does, and the
        interrupted call raises BackendError ``cancelled``.
        """
        ...


class Backend(Protocol):
    """Turns prompts into scores for one model, in sessions that are independent of each other."""

    name: str  # of the class, as `traits`: both are asked for before anything is loaded
    traits: Traits
    context: int
    """Most tokens that a prompt and its answer may have together."""

    @property
    def device(self) -> str:
        """Where it computes: cpu or cuda."""
        ...

    @property
    def dtype(self) -> str:
        """What it computes in: float32 or bfloat16; empty where it computes nothing."""
        ...

    @classmethod
    def load(cls, folder: Path, runtime: Runtime) -> Backend:
        """Load the model in ``folder``; BackendError says what is missing."""
        ...

    def open(self, capacity: int) -> Session:
        """Start a session that will hold at most ``capacity`` tokens."""
        ...
