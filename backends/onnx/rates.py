"""How fast onnxruntime multiplies matrices here, in each precision it has a kernel for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from backends.base import Runtime
from backends.onnx.decoder import options
from backends.onnx.errors import named_errors
from backends.rates import INNER, OPERATIONS, ROWS, least_seconds
from router.bench.rates import Probe, write


def matrix_rates(runtime: Runtime) -> Iterator[tuple[str, float]]:
    """The name and the operations per second of each product, a multiplication and an addition being two."""
    with tempfile.TemporaryDirectory(prefix="hybrid-") as folder:
        for probe in write(Path(folder)):
            yield probe.name, OPERATIONS / _seconds(probe, runtime)


def _seconds(probe: Probe, runtime: Runtime) -> float:
    with named_errors(f"{probe.name} cannot be measured"):
        session = ort.InferenceSession(probe.file, options(runtime), providers=["CPUExecutionProvider"])
        x = (np.random.default_rng(0).random((ROWS, INNER), np.float32) * 100).astype(probe.x)
        return least_seconds(lambda: session.run(None, {"x": x}))
