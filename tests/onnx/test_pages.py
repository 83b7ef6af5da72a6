"""Files brought into the system's cache, and out of it."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from backends.onnx import packed
from backends.onnx.packed import drop, fetch

SIZE = (5 << 20) + 123

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="Linux alone has them for files")


def cached(file: Path) -> float:
    """The share of the file's pages that are in the cache."""
    array = np.memmap(file, np.uint8, "r")
    found = np.zeros(-(-len(array) // mmap.PAGESIZE), np.uint8)
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    assert mincore(array.ctypes.data, len(array), found.ctypes.data) == 0
    return float((found & 1).mean())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "weights.data"
    with written.open("wb") as stream:
        stream.write(np.random.default_rng(0).bytes(SIZE))
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(written) > 0.5:
        pytest.skip("this file system is in memory")
    return written


@pytest.mark.parametrize("window", [1 << 20, 64 << 20])
def test_a_file_is_read_into_the_cache_whole(
    monkeypatch: pytest.MonkeyPatch, file: Path, window: int
) -> None:
    monkeypatch.setattr(packed, "WINDOW", window)
    fetch(file)
    assert cached(file) == 1
    drop(file)
    assert cached(file) < 0.5


def test_what_comes_before_need_not_be(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(packed, "WINDOW", 1 << 20)
    # a huge page at the end of the file may begin in its middle
    fetch(file, SIZE - 1)
    assert 0 < cached(file) < 0.5


def test_a_system_without_huge_pages_is_left_alone(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(packed, "POPULATE_READ", 9999)
    fetch(file)
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    fetch(file)
    assert cached(file) < 0.5


def test_an_empty_file_has_nothing_to_fetch(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    fetch(tmp_path / "empty")
