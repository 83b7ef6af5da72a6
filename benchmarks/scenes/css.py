"""Quadrants in plain CSS colours as a user would draw them: an exam that shares no code with training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, ImageDraw

COUNT = 10
SIZES = ((128, 128), (640, 360), (512, 512), (300, 200), (224, 224))
QUADRUPLES = (
    ("red", "green", "blue", "yellow"),
    ("orange", "purple", "cyan", "white"),
    ("black", "gray", "brown", "red"),
    ("yellow", "magenta", "lime", "blue"),
    ("white", "black", "red", "blue"),
    ("green", "brown", "orange", "gray"),
    ("pink", "cyan", "black", "yellow"),
    ("blue", "orange", "white", "green"),
    ("purple", "lime", "yellow", "pink"),
    ("gray", "red", "magenta", "cyan"),
)
SAID_AS = {"lime": "green", "magenta": "pink"}


def pictures() -> Iterator[tuple[str, list[str], Image.Image]]:
    """Ten pictures: a label, the four colour names in reading order, the picture (PNG and JPEG in turn)."""
    for number, colours in enumerate(QUADRUPLES):
        width, height = SIZES[number % len(SIZES)]
        share = (0.5, 0.5, 0.42, 0.58)[number % 4]
        middle, level = round(width * share), round(height * (1 - share))
        picture = Image.new("RGB", (width, height), colours[0])
        pen = ImageDraw.Draw(picture)
        pen.rectangle((middle, 0, width, level - 1), fill=colours[1])
        pen.rectangle((0, level, middle - 1, height), fill=colours[2])
        pen.rectangle((middle, level, width, height), fill=colours[3])
        kind = "PNG" if number % 2 else "JPEG"
        buffer = BytesIO()
        picture.save(buffer, kind)
        yield f"{width} x {height} {kind}", [SAID_AS.get(name, name) for name in colours], Image.open(buffer)


def names(answer: str) -> list[str]:
    """The colour names of an answer, in order."""
    known = {SAID_AS.get(name, name) for colours in QUADRUPLES for name in colours}
    return [word for word in re.findall(r"[a-z]+", answer) if word in known]
