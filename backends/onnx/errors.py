"""onnxruntime's exceptions as BackendErrors, in words, and the memory that it is to give back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from backends.base import BackendError
from backends.machine import tells_of_no_memory

_RAISED = (
    state.EPFail,
    state.EngineError,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    # what C++ throws where onnxruntime does not catch it
    RuntimeError,
    MemoryError,
)


@contextmanager
def named_errors(what: str, *, code: str = "backend_error") -> Iterator[None]:
    """Raise BackendError ``code``, or ``out_of_memory``, saying that ``what``."""
    try:
        yield
    except _RAISED as error:
        text = str(error).strip().partition("\n")[0]
        if isinstance(error, MemoryError) or tells_of_no_memory(text):
            raise out_of_memory() from error
        raise BackendError(f"backend 'onnx': {what}: {text}", code=code) from error


def out_of_memory() -> BackendError:
    """The error for memory that the system does not give."""
    return BackendError(
        "backend 'onnx' ran out of memory; use a smaller image, context or model", code="out_of_memory"
    )


def shrink_after(run_options: ort.RunOptions) -> None:
    """Let onnxruntime free what the run took from its arena beyond what is in use.

    A large image takes half a gigabyte, which the language model, in an arena of its own, cannot use again.
    Not for runs of a token each: they would take the same memory anew every time.
    """
    run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def trim() -> None:
    """Let the C library return what was freed; where it is not glibc, nothing is to be done."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
