"""Good images: every kind, mode and orientation gives the pixels that it should."""

import io
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from backends.qwen3vl import ImageLimits, patches
from benchmarks.load.image_files import chunk, encoded, gif_declaring, photo, png
from router.images import InputLimits, from_pil, read_image
from tests.images.reading import refused, seen


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
def test_eight_orientations_of_one_photo_give_one_image(kind: str) -> None:
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
def test_damaged_exif_leaves_the_image_as_stored(exif: bytes) -> None:
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


def clear_images() -> dict[str, Image.Image]:
    """The photo with something transparent in it, in every way a file can say so."""
    veil = Image.linear_gradient("L").resize(photo().size)
    rgba = photo().convert("RGBA")
    rgba.putalpha(veil)
    images = {"RGBA": rgba, "LA": rgba.convert("LA"), "PA": rgba.convert("PA")}
    for mode in ("P", "L", "RGB"):
        image = photo().convert(mode)
        image.info["transparency"] = image.getpixel((3, 3))
        images[f"{mode} with a clear colour"] = image
    image = photo().convert("P")
    image.info["transparency"] = bytes(range(256))
    return {**images, "P with many clear colours": image}


@pytest.mark.parametrize("name", clear_images())
def test_what_is_transparent_lies_over_white(name: str) -> None:
    image = clear_images()[name]
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
    image = (photo() if mode == "P" else clear_images()["RGBA"]).convert(mode)
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 9216, "longest_edge": 25600},
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    expected = processor(images=image, return_tensors="np")["pixel_values"]
    got, _ = patches(from_pil(image).pixels, ImageLimits(9216, 25600))
    assert np.array_equal(got, expected)
    other = Image.fromarray(255 - from_pil(image).pixels)
    assert not np.array_equal(patches(from_pil(other).pixels, ImageLimits(9216, 25600))[0], expected)


def test_an_image_larger_than_a_strip_has_no_seams() -> None:
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


def test_a_gif_frame_beyond_the_screen_widens_the_image() -> None:
    data = gif_declaring(1, 1)
    assert np.array_equal(seen(data), seen(encoded(photo(), "GIF")))


def test_what_follows_an_image_is_not_looked_at() -> None:
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


def test_a_jpeg_above_the_default_is_decoded_smaller_when_it_is_let_in() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.linear_gradient("L").resize((7000, 6000), 0), "JPEG", exif=exif)
    refused(data, "image_too_large")
    let_in = InputLimits(max_pixels=50_000_000, useful_pixels=5_000_000)
    small = read_image(data, let_in)
    assert small.size == (3000, 3500), "half, since a quarter is below what is useful; and turned"
    whole = read_image(data, InputLimits(max_pixels=50_000_000))
    assert whole.size == (6000, 7000), "half of 42 million is more than the model uses, a quarter is not"
    part = whole.pixels[:400, -400:].reshape(200, 2, 200, 2, 3).mean(axis=(1, 3))
    assert np.abs(part - small.pixels[:200, -200:]).max() < 3
    assert np.ptp(small.pixels) > 200, "or any part would equal any other"


def test_a_raised_limit_does_not_change_what_the_default_reads() -> None:
    data = encoded(photo(400, 300), "JPEG")
    assert np.array_equal(seen(data, InputLimits(max_pixels=10**9, useful_pixels=1)), seen(data))
