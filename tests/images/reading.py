"""Images read as a request's are, and the words they are refused in."""

from typing import Any

import pytest

from backends.base import RequestError
from router.images import InputLimits, read_image

LIMITS = InputLimits()


def seen(data: bytes, limits: InputLimits = LIMITS) -> Any:
    return read_image(data, limits).pixels


def refused(data: bytes, code: str = "invalid_image", limits: InputLimits = LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        read_image(data, limits)
    assert caught.value.code == code
    return str(caught.value)
