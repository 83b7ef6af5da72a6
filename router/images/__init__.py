"""The one door for pictures: untrusted bytes, a file or a PIL image -> upright, opaque RGB."""

from router.images.reader import InputLimits, from_pil, open_picture, read_picture

__all__ = ["InputLimits", "from_pil", "open_picture", "read_picture"]
