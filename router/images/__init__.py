"""The one door for images: untrusted bytes, a file or a PIL image -> upright, opaque RGB."""

from router.images.reader import InputLimits, from_pil, open_image, read_image

__all__ = ["InputLimits", "from_pil", "open_image", "read_image"]
