"""A picture as a server takes it inside a request."""

from __future__ import annotations

import base64
import io

from router.types import Picture


def as_data_url(picture: Picture) -> str:
    """A ``data:`` address with the picture as PNG, which changes no pixel."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
