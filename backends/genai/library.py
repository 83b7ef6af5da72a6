"""onnxruntime-genai's C interface, as far as a session needs it.

The package's own Python classes keep the interpreter's lock while they compute: during a prompt of ten
seconds no other thread of the process moves, so nothing could be stopped, no signal seen and no other request
answered. ctypes lets go of it. The functions are those of ``ort_genai_c.h``, which is the same library.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import BackendError, Logits
from backends.machine import tells_of_no_memory

_OUT: TypeAlias = POINTER(c_void_p)  # type: ignore[valid-type]

# what returns an OgaResult: null, or an error to be read and destroyed
_CALLS: Mapping[str, tuple[Any, ...]] = {
    "OgaCreateConfig": (c_char_p, _OUT),
    "OgaConfigOverlay": (c_void_p, c_char_p),
    "OgaCreateModelFromConfig": (c_void_p, _OUT),
    "OgaCreateGeneratorParams": (c_void_p, _OUT),
    "OgaGeneratorParamsSetSearchNumber": (c_void_p, c_char_p, c_double),
    "OgaCreateGenerator": (c_void_p, c_void_p, _OUT),
    "OgaGenerator_AppendTokens": (c_void_p, POINTER(c_int32), c_size_t),
    "OgaGenerator_GetLogits": (c_void_p, _OUT),
    "OgaGenerator_RewindTo": (c_void_p, c_size_t),
    "OgaGenerator_SetRuntimeOption": (c_void_p, c_char_p, c_char_p),
    "OgaTensorGetData": (c_void_p, _OUT),
    "OgaTensorGetShapeRank": (c_void_p, POINTER(c_size_t)),
    "OgaTensorGetShape": (c_void_p, POINTER(c_int64), c_size_t),
}


class GenaiError(Exception):
    """What the library says went wrong."""


@contextmanager
def named_errors(what: str, *, code: str = "backend_error") -> Iterator[None]:
    """Raise BackendError ``code``, or ``out_of_memory``, saying that ``what``."""
    try:
        yield
    except GenaiError as error:
        if tells_of_no_memory(str(error)):
            raise BackendError(
                "backend 'genai' ran out of memory; use a smaller context or model", code="out_of_memory"
            ) from error
        raise BackendError(f"backend 'genai': {what}: {error}", code=code) from error


class _Owned:
    """A handle of the library, given back when nobody refers to it any more."""

    kind: str

    def __init__(self, create: str, *arguments: object) -> None:
        self.handle = c_void_p()
        _call(create, *arguments, byref(self.handle))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            getattr(_library(), f"OgaDestroy{self.kind}")(self.handle)


class _Config(_Owned):
    kind = "Config"


class _Params(_Owned):
    kind = "GeneratorParams"


class _Tensor(_Owned):
    kind = "Tensor"


class GenaiModel(_Owned):
    """A model folder with a genai_config.json, loaded once."""

    kind = "Model"

    def __init__(self, folder: Path, session_options: Mapping[str, object]) -> None:
        """``session_options``: over those in genai_config.json. GenaiError: it cannot be loaded."""
        config = _Config("OgaCreateConfig", str(folder).encode())
        overlay = {"model": {"decoder": {"session_options": dict(session_options)}}}
        _call("OgaConfigOverlay", config.handle, json.dumps(overlay).encode())
        super().__init__("OgaCreateModelFromConfig", config.handle)


class GenaiGenerator(_Owned):
    """One sequence and its cache, which takes the memory of ``max_length`` tokens at once."""

    kind = "Generator"

    def __init__(self, model: GenaiModel, max_length: int) -> None:
        params = _Params("OgaCreateGeneratorParams", model.handle)
        _call("OgaGeneratorParamsSetSearchNumber", params.handle, b"max_length", max_length)
        super().__init__("OgaCreateGenerator", model.handle, params.handle)
        self.max_length = max_length
        self._model = model  # stays as long as its generators

    def append(self, ids: NDArray[np.int64]) -> None:
        """Read ``ids`` [tokens]. GenaiError: it failed, or `terminate` ended it; `rewind` then mends it."""
        tokens = np.ascontiguousarray(ids, np.int32)
        _call("OgaGenerator_AppendTokens", self.handle, tokens.ctypes.data_as(POINTER(c_int32)), len(tokens))

    def logits(self) -> Logits:
        """The scores [vocab] after the last token."""
        tensor = _Tensor("OgaGenerator_GetLogits", self.handle)
        rank, data = c_size_t(), c_void_p()
        _call("OgaTensorGetShapeRank", tensor.handle, byref(rank))
        shape = (c_int64 * rank.value)()
        _call("OgaTensorGetShape", tensor.handle, shape, rank)
        _call("OgaTensorGetData", tensor.handle, byref(data))
        values = ctypes.cast(data, POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(values, (shape[rank.value - 1],)).copy()

    def rewind(self, tokens: int) -> None:
        """Forget all but the first ``tokens``, and that it was told to end."""
        self._terminate(b"0")
        _call("OgaGenerator_RewindTo", self.handle, tokens)

    def terminate(self) -> None:
        """End the run that another thread is in, and every later one until it is rewound."""
        self._terminate(b"1")

    def _terminate(self, value: bytes) -> None:
        _call("OgaGenerator_SetRuntimeOption", self.handle, b"terminate_session", value)


def _call(name: str, *arguments: object) -> None:
    library = _library()
    result = getattr(library, name)(*arguments)
    if result:
        text = library.OgaResultGetError(result).decode("utf-8", "replace")
        library.OgaDestroyResult(result)
        raise GenaiError(text.strip().partition("\n")[0])


@cache
def _library() -> ctypes.CDLL:
    import onnxruntime_genai  # noqa: F401  # loads the onnxruntime that the library is to find

    package = find_spec("onnxruntime_genai")
    assert package is not None
    assert package.origin is not None
    (file,) = (
        file for file in Path(package.origin).parent.glob("*onnxruntime-genai.*") if file.suffix != ".lib"
    )
    library = ctypes.CDLL(str(file))
    for name, arguments in _CALLS.items():
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = c_void_p
    library.OgaResultGetError.argtypes, library.OgaResultGetError.restype = (c_void_p,), c_char_p
    for kind in (
        "Result",
        *(owned.kind for owned in (_Config, _Params, _Tensor, GenaiModel, GenaiGenerator)),
    ):
        destroy = getattr(library, f"OgaDestroy{kind}")
        destroy.argtypes, destroy.restype = (c_void_p,), None
    return library
