"""Bad and hostile images: turned away in fixed words, at no cost."""

import io
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backends.base import RequestError
from benchmarks.load.image_files import (
    bad_files,
    bmp_declaring,
    chunk,
    encoded,
    gif_declaring,
    jpeg_declaring,
    photo,
    png,
    progressive_with,
    webp_declaring,
)
from router.images import InputLimits, from_pil, read_image
from tests.images.reading import LIMITS, refused, seen


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_refused_in_fixed_words(name: str) -> None:
    start = time.process_time()
    message = refused(bad_files()[name])
    assert time.process_time() - start < 1
    assert message.startswith("the image ")
    assert "0x" not in message
    assert "BytesIO" not in message


def test_the_bad_files_are_bad_by_what_was_done_to_them() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        assert seen(encoded(photo(), kind)).shape == (37, 53, 3)
    assert seen(png(9, 9)).shape == (9, 9, 3)


def test_floating_point_and_more_than_sixteen_bits_are_refused() -> None:
    for image in (
        Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)),
        Image.new("I", (8, 8), -1),
        Image.new("I", (8, 8), 65536),
    ):
        with pytest.raises(RequestError, match="8 or 16") as caught:
            from_pil(image)
        assert caught.value.code == "invalid_image"


def test_a_pil_image_of_a_damaged_file_is_refused() -> None:
    data = encoded(photo(300, 300), "PNG")
    with pytest.raises(RequestError, match="damaged"):
        from_pil(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_a_very_long_image_is_refused_before_it_is_decoded() -> None:
    message = refused(png(2001, 10, body=b"not even compressed"), "image_aspect_ratio")
    assert "2001 x 10" in message
    assert seen(png(2000, 10)).shape == (10, 2000, 3)
    with pytest.raises(RequestError, match="1 x 3000"):
        from_pil(Image.new("L", (1, 3000)))


def test_the_size_and_the_limit_are_named() -> None:
    message = refused(png(300, 200), "image_too_large", InputLimits(max_pixels=59_999))
    assert all(number in message for number in ("300 x 200", "60,000", "59,999"))
    assert seen(png(300, 200), InputLimits(max_pixels=60_000)).shape == (200, 300, 3)
    data = png(9, 9)
    message = refused(data, "image_too_large", InputLimits(max_bytes=len(data) - 1))
    assert all(str(number) in message for number in (len(data), len(data) - 1))
    assert seen(data, InputLimits(max_bytes=len(data))).shape == (9, 9, 3)
    with pytest.raises(RequestError, match="300 x 200"):
        from_pil(Image.new("L", (300, 200)), InputLimits(max_pixels=59_999))


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels", "max_images", "useful_pixels"])
def test_limits_are_checked_where_they_are_made(field: str) -> None:
    with pytest.raises(RequestError, match=field):
        InputLimits(**{field: 0})


DECLARED = {
    "PNG": png(13_400, 13_400, body=b"x"),
    "PNG of 2^31": png(2**31 - 1, 2**31 - 1, body=b"x"),
    "JPEG": jpeg_declaring(65_000, 65_000),
    "GIF": gif_declaring(65_000, 65_000),
    "WebP": webp_declaring(16_000, 16_000),
    "WebP of 2^24": webp_declaring(2**24, 2**24),
    "BMP": bmp_declaring(60_000, -60_000),
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_huge_declared_size_is_refused_at_once(name: str) -> None:
    start = time.process_time()
    message = refused(DECLARED[name], "image_too_large")
    assert time.process_time() - start < 0.1
    assert " x " in message
    assert "40,000,000" in message


def test_a_jpeg_of_many_scans_is_refused() -> None:
    assert seen(progressive_with(50)).shape == (64, 64, 3)
    data = progressive_with(100_000)
    start = time.process_time()
    assert "scans" in refused(data)
    assert time.process_time() - start < 0.1, "a decoder would walk the image 100,000 times"


def test_a_file_of_many_empty_parts_is_refused() -> None:
    start = time.process_time()
    assert "parts" in refused(png(9, 9, extra=chunk(b"abCd", b"") * 100_000))
    assert "damaged" in refused(encoded(photo(), "GIF")[:10] + b"\0\0\0!\xfe" + b"\x01x" * 100_000 + b"\0")
    jpeg = encoded(photo(), "JPEG")
    refused(jpeg[:2] + b"\xff\xe5\0\2" * 100_000 + jpeg[2:])
    assert time.process_time() - start < 0.5
    assert np.array_equal(seen(png(9, 9, extra=chunk(b"abCd", b"") * 1000)), seen(png(9, 9)))


CHILD = """
import sys, time
from pathlib import Path
from router.images import InputLimits, read_image
from backends.base import RequestError

def peak():  # of this process alone; ru_maxrss would start at what the parent had
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

read_image(Path(sys.argv[1]).read_bytes())
limits = InputLimits(max_pixels=int(sys.argv[2]))
for name in sys.argv[3:]:
    before, start = peak(), time.process_time()
    try:
        read_image(Path(name).read_bytes(), limits)
        code = "read"
    except RequestError as error:
        code = error.code
    print(code, time.process_time() - start, peak() - before)
"""


def in_a_child(files: list[Path], max_pixels: int = LIMITS.max_pixels) -> list[tuple[str, float, float]]:
    """Code, seconds and megabytes above the peak before, for each file; the first only warms up."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        CHILD,
        str(files[0]),
        str(max_pixels),
        *map(str, files[1:]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(code, float(seconds), float(megabytes)) for code, seconds, megabytes in rows]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_refusing_a_bomb_costs_no_time_and_no_memory(tmp_path: Path) -> None:
    bombs = {
        "warm.png": encoded(photo(), "PNG"),
        "42-million.png": png(7000, 6000),
        "180-million.png": png(13_400, 13_400, depth=1),
        "text.png": png(9, 9, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 1))),
        "scans.jpg": progressive_with(100_000),
        **{f"declared {name}": data for name, data in DECLARED.items()},
    }
    files = [tmp_path / name for name in bombs]
    for file in files:
        file.write_bytes(bombs[file.name])
    results = dict(zip(files[1:], in_a_child(files), strict=True))
    for file, (code, seconds, megabytes) in results.items():
        # the text chunk is left behind unread, so the small image before it is simply an image
        assert code == {"text.png": "read", "scans.jpg": "invalid_image"}.get(file.name, "image_too_large")
        assert seconds < 0.1, file.name
        assert megabytes < 20, file.name
    ((code, _, megabytes),) = in_a_child(files[:2], max_pixels=50_000_000)
    assert code == "read"
    assert megabytes > 100, "the measurement must see a decode that is not refused"


GOOD = [
    encoded(photo(), "PNG"),
    encoded(photo(), "JPEG", progressive=True),
    encoded(photo(), "WEBP"),
    encoded(photo(), "GIF"),
    encoded(photo(), "BMP"),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(GOOD),
    st.lists(
        st.tuples(st.integers(0, 10_000), st.binary(max_size=8), st.integers(0, 8)), min_size=1, max_size=4
    ),
)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    data: bytes, edits: list[tuple[int, bytes, int]]
) -> None:
    for place, inserted, removed in edits:
        place %= len(data) + 1
        data = data[:place] + inserted + data[place + removed :]
    try:
        image = read_image(data)
    except RequestError as error:
        assert error.code in ("invalid_image", "image_too_large", "image_aspect_ratio")  # noqa: PT017
    else:
        assert image.pixels.shape == (image.size[1], image.size[0], 3)
