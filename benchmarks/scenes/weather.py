"""What happens to a picture on its way to a user: noise, blur, JPEG and a little light."""

from __future__ import annotations

from io import BytesIO
from random import Random

import numpy as np
from PIL import Image, ImageFilter


def weather(picture: Image.Image, random: Random) -> Image.Image:
    """The picture, in about half of all cases blurred, noisy or squeezed through JPEG."""
    if random.random() < 0.15:
        picture = picture.filter(ImageFilter.BoxBlur(random.uniform(0.5, 1.5)))
    if random.random() < 0.2:
        picture = _noise(picture, random)
    if random.random() < 0.2:
        picture = _jpeg(picture, random.randint(40, 95))
    return picture


def _noise(picture: Image.Image, random: Random) -> Image.Image:
    generator = np.random.Generator(np.random.SFC64(random.getrandbits(32)))
    pixels = np.asarray(picture, np.float32)
    grain = generator.standard_normal(pixels.shape, np.float32) * random.uniform(1, 10)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
