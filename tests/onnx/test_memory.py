"""What an image takes is given back when it has been seen."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

from backends.base import Runtime  # noqa: E402
from backends.onnx.errors import shrink_after, trim  # noqa: E402
from backends.onnx.vision import VisionEncoder  # noqa: E402
from backends.qwen3vl import Config  # noqa: E402
from tests.exports import fp32  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
SIDE = 96  # patches: the tiny tower takes some tens of megabytes


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def taken(*, shrink: bool) -> int:
    """Bytes that stay taken after a large image."""
    out = fp32().out
    encoder = VisionEncoder(out, Config.read(out).vision, Runtime(device="cpu", threads=1))
    small, large = (np.zeros((side * side, 1536), np.float32) for side in (4, SIDE))
    encoder.encode(small, np.array([[1, 4, 4]]))
    before = resident()
    how = ort.RunOptions()
    if shrink:
        shrink_after(how)
    encoder.encode(large, np.array([[1, SIDE, SIDE]]), how)
    trim()
    return resident() - before


def taken_alone(*, shrink: bool) -> int:
    """In a process of its own: what other tests freed here would serve the image again."""
    script = f"from tests.onnx.test_memory import taken; print(taken(shrink={shrink}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell")
def test_a_large_image_leaves_little_behind() -> None:
    kept, freed = taken_alone(shrink=False), taken_alone(shrink=True)
    assert kept > 10_000_000
    assert freed < kept / 2
