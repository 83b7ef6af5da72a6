"""The twelve colour names `scenes` knows, each with the RGB values that people call so."""

from __future__ import annotations

from random import Random

Rgb = tuple[int, int, int]

# The first value of each name is the plain CSS one; values that two names could claim are left out.
ANCHORS: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (220, 20, 20), (205, 0, 0), (235, 45, 45), (230, 25, 50)),
    "green": (
        (0, 128, 0),
        (0, 255, 0),
        (0, 200, 0),
        (34, 139, 34),
        (50, 205, 50),
        (0, 100, 0),
        (60, 180, 75),
    ),
    "blue": ((0, 0, 255), (30, 60, 220), (0, 0, 205), (0, 0, 128), (65, 105, 225), (30, 144, 255)),
    "yellow": ((255, 255, 0), (255, 225, 25), (240, 225, 0), (255, 215, 0), (255, 235, 59)),
    "orange": ((255, 165, 0), (255, 140, 0), (245, 130, 48), (255, 127, 0), (255, 152, 0)),
    "purple": ((128, 0, 128), (145, 30, 180), (148, 0, 211), (138, 43, 226), (75, 0, 130), (102, 51, 153)),
    "pink": (
        (255, 192, 203),
        (255, 0, 255),
        (255, 105, 180),
        (255, 20, 147),
        (250, 190, 212),
        (255, 130, 190),
    ),
    "brown": ((165, 42, 42), (139, 69, 19), (160, 82, 45), (150, 75, 0), (121, 85, 72), (101, 67, 33)),
    "black": ((0, 0, 0), (0, 0, 0), (16, 16, 16), (28, 28, 28)),
    "white": ((255, 255, 255), (255, 255, 255), (245, 245, 245), (238, 238, 238)),
    "gray": ((128, 128, 128), (160, 160, 160), (100, 100, 100), (192, 192, 192), (169, 169, 169)),
    "cyan": ((0, 255, 255), (0, 206, 209), (64, 224, 208), (70, 240, 240), (0, 188, 212)),
}
NAMES = tuple(ANCHORS)
JITTER = 10  # largest change of one channel: neighbouring names stay apart


def shade(name: str, random: Random) -> Rgb:
    """One RGB value for a colour name: the plain CSS value often, else an anchor with a little jitter."""
    anchors = ANCHORS[name]
    if random.random() < 0.35:
        return anchors[0]
    red, green, blue = random.choice(anchors)
    if random.random() < 0.3:
        return red, green, blue
    return _jitter(red, random), _jitter(green, random), _jitter(blue, random)


def _jitter(level: int, random: Random) -> int:
    return min(255, max(0, level + random.randint(-JITTER, JITTER)))
