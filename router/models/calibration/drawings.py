"""Pictures drawn for calibration: shapes, gradients, words, bars, noise; the same ones every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from router.types import Picture

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple", "gray", "brown")
WORDS = ("Open 9-17", "EXIT", "Total 42.50", "North Road", "12:45", "Coffee & cake", "No. 7", "SALE -20%")


def drawings(count: int, seed: int) -> list[Picture]:
    """``count`` pictures of 256 to 448 pixels a side, of each kind in turn, two by two."""
    random = np.random.default_rng(seed)
    sizes = random.integers(8, 15, (count, 2)) * 32
    return [
        Picture(np.asarray(KINDS[index // 2 % len(KINDS)](random, int(width), int(height)), np.uint8))
        for index, (width, height) in enumerate(sizes)
    ]


def _shapes(random: np.random.Generator, width: int, height: int) -> Image.Image:
    ground, *colours = random.permutation(COLOURS).tolist()
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    for index, colour in enumerate(colours[:6]):
        x, y, size = (random.random(3) * (width, height, 90)).tolist()
        box = (x, y, x + 30 + size, y + 30 + size)
        if index % 3 == 0:
            pen.ellipse(box, fill=colour)
        elif index % 3 == 1:
            pen.rectangle(box, fill=colour, outline="black", width=3)
        else:
            pen.polygon([box[:2], (box[0], box[3]), box[2:]], fill=colour)
    return image


def _gradient(random: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    corners = random.integers(0, 256, (3, 3))
    mixed = corners[0] + across[..., None] * (corners[1] - corners[0])
    mixed += down[..., None] * (corners[2] - corners[0])
    return np.asarray(mixed.clip(0, 255), np.uint8)


def _words(random: np.random.Generator, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for line, word in enumerate(random.permutation(WORDS).tolist()[:4]):
        pen.text((20, 20 + line * height // 4), word, fill=COLOURS[line], font=ImageFont.load_default(36))
    return image


def _quarters(random: np.random.Generator, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(image)
    places = [(x, y) for x in (0, width // 2) for y in (0, height // 2)]
    for (x, y), colour in zip(places, random.permutation(COLOURS).tolist(), strict=False):
        pen.rectangle((x, y, x + width // 2, y + height // 2), fill=colour)
    return image


def _bars(random: np.random.Generator, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    step = width // 6
    for index, share in enumerate(random.uniform(0.1, 0.8, 5).tolist()):
        left, top = step // 2 + index * step, height - 30 - share * (height - 60)
        pen.rectangle((left, top, left + step * 0.7, height - 30), fill=COLOURS[index])
        pen.text((left, height - 26), "ABCDE"[index], fill="black", font=ImageFont.load_default(18))
    pen.line((0, height - 30, width, height - 30), fill="black", width=2)
    return image


def _soft_noise(random: np.random.Generator, width: int, height: int) -> Image.Image:
    coarse = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(4))


KINDS = (_shapes, _gradient, _words, _quarters, _bars, _soft_noise)
