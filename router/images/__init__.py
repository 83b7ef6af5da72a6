"""The one way in for images: untrusted bytes, a file or a PIL image -> upright, opaque RGB.

::

    reader       InputLimits, what is accepted; read_image, open_image, from_pil: decoded, upright, on white
    containers   what a file says about itself, and the part of it that a decoder sees
"""

from router.images.reader import InputLimits, from_pil, open_image, read_image

__all__ = ["InputLimits", "from_pil", "open_image", "read_image"]
