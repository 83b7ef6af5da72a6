"""Which backend answers: a pure function."""

import numpy as np
import pytest

from backends.base import BackendError, Capability, RequestError
from router.policy import decide
from router.types import Message, Picture, Request

PICTURE = Picture(np.zeros((32, 32, 3), np.uint8))
TEXT = Request((Message.of("user", "hello"),))
PICTURED = Request((Message.of("user", PICTURE, "what?"),))
LATER = Request(
    (Message.of("user", PICTURE, "what?"), Message.of("assistant", "red"), Message.of("user", "and where?"))
)
ALL = {
    "torch": Capability(True),
    "genai": Capability(False),
    "onnx": Capability(True),
    "scripted": Capability(True),
}


def without(*names: str) -> dict[str, Capability]:
    return {
        name: Capability(c.sees_images, "not installed" if name in names else None) for name, c in ALL.items()
    }


@pytest.mark.parametrize(
    ("request_", "available", "backend", "fallbacks"),
    [
        (TEXT, ALL, "genai", ("onnx", "torch")),
        (TEXT, without("genai"), "onnx", ("torch",)),
        (TEXT, without("genai", "onnx"), "torch", ()),
        (PICTURED, ALL, "onnx", ("torch",)),
        (PICTURED, without("onnx"), "torch", ()),
        (LATER, ALL, "onnx", ("torch",)),
    ],
)
def test_auto_takes_the_first_usable(
    request_: Request, available: dict[str, Capability], backend: str, fallbacks: tuple[str, ...]
) -> None:
    decision = decide(request_, available)
    assert (decision.backend, decision.fallbacks) == (backend, fallbacks)


def test_the_reason_names_what_decided() -> None:
    assert decide(TEXT, ALL).reason == "text only"
    assert decide(LATER, ALL).reason == "the conversation has a picture"
    assert "genai: not installed" in decide(TEXT, without("genai")).reason


def test_a_named_backend_is_taken() -> None:
    named = Request(TEXT.messages, backend="scripted")
    assert decide(named, ALL).backend == "scripted"
    assert decide(named, ALL).fallbacks == ()


def test_a_named_backend_that_cannot_see_refuses_a_picture() -> None:
    with pytest.raises(RequestError, match="backend 'genai' reads text only"):
        decide(Request(LATER.messages, backend="genai"), ALL)


def test_a_named_backend_that_cannot_be_used_is_an_error_not_a_switch() -> None:
    with pytest.raises(BackendError, match="backend 'onnx' cannot be used: not installed"):
        decide(Request(TEXT.messages, backend="onnx"), without("onnx"))


def test_an_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RequestError, match="no backend is named 'gpu'; choose one of torch, genai") as raised:
        decide(Request(TEXT.messages, backend="gpu"), ALL)
    assert raised.value.param == "backend"


def test_nothing_usable_says_why_for_each() -> None:
    with pytest.raises(BackendError, match="onnx: not installed; torch: not installed"):
        decide(PICTURED, without("onnx", "torch"))
