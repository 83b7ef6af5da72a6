"""Images by path: regular files only, and nothing to wait for."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from backends.base import RequestError
from benchmarks.load.image_files import encoded, photo
from router.images import open_image


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    file = tmp_path / "photo.txt"  # told by content, not by name
    file.write_bytes(encoded(photo(), "PNG"))
    (tmp_path / "link").symlink_to(file)
    for path in (file, tmp_path / "link", str(file)):
        assert np.array_equal(open_image(path).pixels, photo())


def unreadable(folder: Path) -> dict[str, tuple[str, str]]:
    os.mkfifo(folder / "pipe")
    (folder / "to a pipe").symlink_to(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "text.png").write_text("hello")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    return {
        "pipe": (str(folder / "pipe"), "not a regular file"),
        "link to a pipe": (str(folder / "to a pipe"), "not a regular file"),
        "folder": (str(folder), "cannot be read: Is a directory"),
        "device": ("/dev/zero", "not a regular file"),
        "loop": (str(folder / "loop"), "cannot be read: Too many levels"),
        "missing": (str(folder / "missing.png"), "cannot be read: No such file"),
        "below a file": (str(folder / "text.png" / "x"), "cannot be read: Not a directory"),
        "long name": (str(folder / ("x" * 300)), "cannot be read: File name too long"),
        "NUL in the name": (str(folder / "a\0b"), "no file name may hold"),
        "text": (str(folder / "text.png"), "is not a PNG"),
        "a terabyte of nothing": (str(folder / "huge.png"), "1,099,511,627,776 bytes"),
    }


def test_what_is_no_image_file_is_refused_at_once_and_named(tmp_path: Path) -> None:
    for case, (path, words) in unreadable(tmp_path).items():
        start = time.perf_counter()
        with pytest.raises(RequestError) as caught:
            open_image(path)
        assert time.perf_counter() - start < 1, case
        assert caught.value.code == ("image_too_large" if "terabyte" in case else "invalid_image"), case
        assert words in str(caught.value), case
        assert str(caught.value).startswith(repr(path)), case


def test_no_file_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    for path, _ in unreadable(tmp_path).values():
        with pytest.raises(RequestError):
            open_image(path)
    assert len(os.listdir("/dev/fd")) == before
