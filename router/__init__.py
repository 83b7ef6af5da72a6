"""hybrid: answers about text and images with Qwen3-VL, by the backend that fits each request.

The library's face. Importing it loads nothing heavy; each name is imported when it is first used::

    from router import Message, Request, Router, open_image

    router = Router()
    question = Message.of("user", open_image("photo.jpg"), "Which colours do you see?")
    print(router.complete(Request((question,))).text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backends.base import BackendError, RequestError, Runtime
    from router.images import InputLimits, from_pil, open_image, read_image
    from router.router import Answer, Router
    from router.types import (
        Candidate,
        Chunk,
        Completion,
        Decision,
        Estimate,
        Message,
        Picture,
        Request,
        Route,
        Sampling,
        Situation,
        Stats,
    )

__all__ = [
    "Answer",
    "BackendError",
    "Candidate",
    "Chunk",
    "Completion",
    "Decision",
    "Estimate",
    "InputLimits",
    "Message",
    "Picture",
    "Request",
    "RequestError",
    "Route",
    "Router",
    "Runtime",
    "Sampling",
    "Situation",
    "Stats",
    "from_pil",
    "open_image",
    "read_image",
]

_MODULES = {
    "backends.base": ("BackendError", "RequestError", "Runtime"),
    "router.images": ("InputLimits", "from_pil", "open_image", "read_image"),
    "router.router": ("Answer", "Router"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'router' has no attribute '{name}'")
    return getattr(import_module(_HOME.get(name, "router.types")), name)
