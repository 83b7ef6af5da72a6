"""The door for pictures: what comes in right, what is turned away, and at what cost."""

import io
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from backends.base import RequestError
from backends.qwen3vl.images import Limits, patches
from router.pictures import PictureLimits, from_pil, open_picture, read_picture
from tests.picture_corpus import (
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

LIMITS = PictureLimits()


def seen(data: bytes, limits: PictureLimits = LIMITS) -> Any:
    return read_picture(data, limits).pixels


def refused(data: bytes, code: str = "invalid_image", limits: PictureLimits = LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        read_picture(data, limits)
    assert caught.value.code == code
    return str(caught.value)


# what comes in


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("GIF", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})],
)
def test_five_kinds_are_read_as_pillow_reads_them(kind: str, options: dict[str, Any]) -> None:
    data = encoded(photo(), kind, **options)
    pixels = seen(data)
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(pixels.astype(int) - np.asarray(photo())).max() < 40
    assert (pixels.dtype, pixels.flags.c_contiguous, pixels.flags.writeable) == (np.uint8, True, False)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_eight_orientations_of_one_photo_give_one_picture(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0}
    if kind == "PNG":
        options = {}
    upright = np.asarray(photo())
    turns: list[Any] = [None, *(Image.Transpose(turn) for turn in (0, 3, 1, 5, 2, 6, 4))]
    turned_back = 0
    for orientation, turn in enumerate(turns, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = photo() if turn is None else photo().transpose(turn)
        data = encoded(stored, kind, exif=exif, **options)
        pixels = seen(data)
        assert np.array_equal(pixels, ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        assert np.abs(pixels.astype(int) - upright).max() <= (8 if kind == "JPEG" else 0)
        assert pixels.flags.c_contiguous
        assert np.array_equal(from_pil(Image.open(io.BytesIO(data))).pixels, pixels)
        turned_back += not np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert turned_back == 7, "without EXIF seven of the eight are wrong"


@pytest.mark.parametrize(
    "exif",
    [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"nonsense" * 9],
    ids=repr,
)
def test_damaged_exif_leaves_the_picture_as_stored(exif: bytes) -> None:
    assert np.array_equal(seen(encoded(photo(), "PNG", exif=b"Exif\0\0" + exif)), photo())
    assert np.array_equal(
        from_pil(Image.open(io.BytesIO(encoded(photo(), "PNG", exif=exif)))).pixels, photo()
    )


def test_an_orientation_set_in_memory_is_applied() -> None:
    image = photo()
    image.getexif()[0x0112] = 6
    assert np.array_equal(from_pil(image).pixels, ImageOps.exif_transpose(image))
    assert image.size == (53, 37), "the caller's image is left as it was"


def ramp() -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


def test_sixteen_bit_grey_keeps_256_levels() -> None:
    expected = np.repeat((ramp() >> 8).astype(np.uint8)[..., None], 3, axis=2)
    data = encoded(Image.fromarray(ramp()), "PNG")
    assert np.array_equal(seen(data), expected)
    clipped = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (clipped[1:] == 255).all(), "why this is not left to Pillow"
    for image in (
        Image.fromarray(ramp()),
        Image.frombytes("I;16B", (256, 256), ramp().astype(">u2").tobytes()),
        Image.fromarray(ramp().astype(np.int32)),
    ):
        assert image.mode.startswith("I")
        assert np.array_equal(from_pil(image).pixels, expected)


def test_a_clear_level_of_sixteen_bit_grey_is_white() -> None:
    rows = np.full((4, 4), 0x1234, ">u2")
    rows[0, 0] = 0x1200  # the same upper byte, not the same level
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    pixels = seen(png(4, 4, depth=16, body=body, extra=chunk(b"tRNS", b"\x12\x34")))
    assert pixels[0, 0].tolist() == [0x12] * 3
    assert pixels[1, 1].tolist() == [255] * 3


def clear_pictures() -> dict[str, Image.Image]:
    """The photo with something transparent in it, in every way a file can say so."""
    veil = Image.linear_gradient("L").resize(photo().size)
    rgba = photo().convert("RGBA")
    rgba.putalpha(veil)
    pictures = {"RGBA": rgba, "LA": rgba.convert("LA"), "PA": rgba.convert("PA")}
    for mode in ("P", "L", "RGB"):
        image = photo().convert(mode)
        image.info["transparency"] = image.getpixel((3, 3))
        pictures[f"{mode} with a clear colour"] = image
    image = photo().convert("P")
    image.info["transparency"] = bytes(range(256))
    return {**pictures, "P with many clear colours": image}


@pytest.mark.parametrize("name", clear_pictures())
def test_what_is_transparent_lies_over_white(name: str) -> None:
    image = clear_pictures()[name]
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    assert np.array_equal(from_pil(image).pixels, expected)
    assert not np.array_equal(np.asarray(image.copy().convert("RGBA").convert("RGB")), expected)
    if image.mode != "PA":  # no file holds it
        assert np.array_equal(seen(encoded(image, "PNG")), expected)


def test_wholly_clear_red_is_white() -> None:
    assert (seen(encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG")) == 255).all()
    assert (seen(encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 255)), "PNG")) == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "YCbCr", "PA", "RGB"])
def test_every_mode_gives_the_patches_of_transformers(mode: str) -> None:
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    # Pillow's P made from RGBA has clear colours that transformers does not look for
    image = (photo() if mode == "P" else clear_pictures()["RGBA"]).convert(mode)
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 9216, "longest_edge": 25600},
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    expected = processor(images=image, return_tensors="np")["pixel_values"]
    got, _ = patches(from_pil(image).pixels, Limits(9216, 25600))
    assert np.array_equal(got, expected)
    other = Image.fromarray(255 - from_pil(image).pixels)
    assert not np.array_equal(patches(from_pil(other).pixels, Limits(9216, 25600))[0], expected)


def test_a_picture_larger_than_a_strip_has_no_seams() -> None:
    image = photo(1500, 1400).convert("RGBA")
    assert 1500 * 1400 > 2 * (1 << 20), "or there is only one strip"
    exif = Image.Exif()
    exif[0x0112] = 7
    image.info["exif"] = exif.tobytes()
    expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(from_pil(image).pixels, expected)


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [photo(), ImageOps.invert(photo()), ImageOps.mirror(photo())]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
        still = encoded(frames[0], kind, **options)
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert np.array_equal(seen(data), seen(still))


def test_two_thousand_frames_cost_no_more_than_one() -> None:
    data = encoded(photo(), "GIF")
    frame = data[data.rindex(b",\0\0\0\0") : -1]
    start = time.process_time()
    pixels = seen(data[:-1] + frame * 2000 + b";")
    assert time.process_time() - start < 0.2
    assert np.array_equal(pixels, seen(data))


def test_a_gif_frame_beyond_the_screen_widens_the_picture() -> None:
    data = gif_declaring(1, 1)
    assert np.array_equal(seen(data), seen(encoded(photo(), "GIF")))


def test_what_follows_a_picture_is_not_looked_at() -> None:
    data = encoded(photo(), "JPEG")
    # a phone's film after its photo: any bytes, those of a scan's marker among them
    for tail in (b"PK\x03\x04 archive", b"<html>", b"\xff\xda\x00\x08" * 1000, encoded(photo(), "JPEG")):
        assert np.array_equal(seen(data + tail), seen(data))


def test_comments_profiles_and_thumbnails_are_left_behind() -> None:
    options = {"comment": b"x" * 5000, "icc_profile": b"y" * 200_000, "xmp": b"z" * 5000}
    assert np.array_equal(seen(encoded(photo(), "JPEG", **options)), seen(encoded(photo(), "JPEG")))
    texts = chunk(b"tEXt", b"a\0" + b"x" * 5000) + chunk(b"iCCP", b"junk") + chunk(b"acTL", b"junk")
    assert np.array_equal(seen(png(9, 9, extra=texts)), seen(png(9, 9)))


def test_cmyk_and_grey_jpegs_are_read_as_pillow_reads_them() -> None:
    for mode in ("CMYK", "L"):
        data = encoded(photo().convert(mode), "JPEG")
        assert np.array_equal(seen(data), Image.open(io.BytesIO(data)).convert("RGB"))


# what is turned away


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_refused_in_fixed_words(name: str) -> None:
    start = time.process_time()
    message = refused(bad_files()[name])
    assert time.process_time() - start < 1
    assert message.startswith("the picture ")
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


def test_a_very_long_picture_is_refused_before_it_is_decoded() -> None:
    message = refused(png(2001, 10, body=b"not even compressed"), "image_aspect_ratio")
    assert "2001 x 10" in message
    assert seen(png(2000, 10)).shape == (10, 2000, 3)
    with pytest.raises(RequestError, match="1 x 3000"):
        from_pil(Image.new("L", (1, 3000)))


def test_the_size_and_the_limit_are_named() -> None:
    message = refused(png(300, 200), "image_too_large", PictureLimits(max_pixels=59_999))
    assert all(number in message for number in ("300 x 200", "60,000", "59,999"))
    assert seen(png(300, 200), PictureLimits(max_pixels=60_000)).shape == (200, 300, 3)
    data = png(9, 9)
    message = refused(data, "image_too_large", PictureLimits(max_bytes=len(data) - 1))
    assert all(str(number) in message for number in (len(data), len(data) - 1))
    assert seen(data, PictureLimits(max_bytes=len(data))).shape == (9, 9, 3)
    with pytest.raises(RequestError, match="300 x 200"):
        from_pil(Image.new("L", (300, 200)), PictureLimits(max_pixels=59_999))


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels", "max_pictures", "useful_pixels"])
def test_limits_are_checked_where_they_are_made(field: str) -> None:
    with pytest.raises(RequestError, match=field):
        PictureLimits(**{field: 0})


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
    assert time.process_time() - start < 0.1, "a decoder would walk the picture 100,000 times"


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
from router.pictures import PictureLimits, read_picture
from backends.base import RequestError

def peak():  # of this process alone; ru_maxrss would start at what the parent had
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

read_picture(Path(sys.argv[1]).read_bytes())
limits = PictureLimits(max_pixels=int(sys.argv[2]))
for name in sys.argv[3:]:
    before, start = peak(), time.process_time()
    try:
        read_picture(Path(name).read_bytes(), limits)
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
        # the text chunk is left behind unread, so the small picture before it is simply a picture
        assert code == {"text.png": "read", "scans.jpg": "invalid_image"}.get(file.name, "image_too_large")
        assert seconds < 0.1, file.name
        assert megabytes < 20, file.name
    ((code, _, megabytes),) = in_a_child(files[:2], max_pixels=50_000_000)
    assert code == "read"
    assert megabytes > 100, "the measurement must see a decode that is not refused"


def test_a_jpeg_above_the_default_is_decoded_smaller_when_it_is_let_in() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.linear_gradient("L").resize((7000, 6000), 0), "JPEG", exif=exif)
    refused(data, "image_too_large")
    let_in = PictureLimits(max_pixels=50_000_000, useful_pixels=5_000_000)
    small = read_picture(data, let_in)
    assert small.size == (3000, 3500), "half, since a quarter is below what is useful; and turned"
    whole = read_picture(data, PictureLimits(max_pixels=50_000_000))
    assert whole.size == (6000, 7000), "half of 42 million is more than the model uses, a quarter is not"
    part = whole.pixels[:400, -400:].reshape(200, 2, 200, 2, 3).mean(axis=(1, 3))
    assert np.abs(part - small.pixels[:200, -200:]).max() < 3
    assert np.ptp(small.pixels) > 200, "or any part would equal any other"


def test_a_raised_limit_does_not_change_what_the_default_reads() -> None:
    data = encoded(photo(400, 300), "JPEG")
    assert np.array_equal(seen(data, PictureLimits(max_pixels=10**9, useful_pixels=1)), seen(data))


# files


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    file = tmp_path / "photo.txt"  # told by content, not by name
    file.write_bytes(encoded(photo(), "PNG"))
    (tmp_path / "link").symlink_to(file)
    for path in (file, tmp_path / "link", str(file)):
        assert np.array_equal(open_picture(path).pixels, photo())


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


def test_what_is_no_picture_file_is_refused_at_once_and_named(tmp_path: Path) -> None:
    for case, (path, words) in unreadable(tmp_path).items():
        start = time.perf_counter()
        with pytest.raises(RequestError) as caught:
            open_picture(path)
        assert time.perf_counter() - start < 1, case
        assert caught.value.code == ("image_too_large" if "terabyte" in case else "invalid_image"), case
        assert words in str(caught.value), case
        assert str(caught.value).startswith(repr(path)), case


def test_no_file_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    for path, _ in unreadable(tmp_path).values():
        with pytest.raises(RequestError):
            open_picture(path)
    assert len(os.listdir("/dev/fd")) == before


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
        picture = read_picture(data)
    except RequestError as error:
        assert error.code in ("invalid_image", "image_too_large", "image_aspect_ratio")  # noqa: PT017
    else:
        assert picture.pixels.shape == (picture.size[1], picture.size[0], 3)
