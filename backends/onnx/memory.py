"""Gives memory back to the system that only loading a model or seeing a picture needed."""

from __future__ import annotations

import ctypes

import onnxruntime as ort


def shrink_after(run_options: ort.RunOptions) -> None:
    """Let onnxruntime free what the run took from its arena beyond what is in use.

    A large picture takes half a gigabyte, which the language model, in an arena of its own, cannot use again.
    Not for runs of a token each: they would take the same memory anew every time.
    """
    run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def trim() -> None:
    """Let the C library return what was freed; where it is not glibc, nothing is to be done."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
