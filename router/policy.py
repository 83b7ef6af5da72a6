"""Which backend answers a request: a pure decision over what each can do here; it loads nothing."""

from __future__ import annotations

from collections.abc import Mapping

from backends.base import BackendError, Capability, RequestError
from router.types import Decision, Request

FOR_PICTURES = ("onnx", "torch")
FOR_TEXT = ("genai", "onnx", "torch")


def decide(request: Request, available: Mapping[str, Capability]) -> Decision:
    """The backend for ``request``, why, and which come next should it fail to load.

    RequestError: the backend named in the request cannot serve it; there is no silent switch.
    BackendError: no backend can be used on this machine.
    """
    if request.backend is not None:
        return _named(request, request.backend, available)
    order = FOR_PICTURES if request.has_image else FOR_TEXT
    usable = [name for name in order if name in available and available[name].problem is None]
    if not usable:
        raise BackendError(_nothing(order, available), code="backend_unavailable")
    reason = "the conversation has a picture" if request.has_image else "text only"
    return Decision(usable[0], _with_refusals(reason, order, usable[0], available), tuple(usable[1:]))


def _named(request: Request, name: str, available: Mapping[str, Capability]) -> Decision:
    capability = available.get(name)
    if capability is None:
        raise RequestError(
            f"no backend is named '{name}'; choose one of {', '.join(available)}",
            code="backend_not_found",
            param="backend",
        )
    if capability.problem is not None:
        raise BackendError(
            f"backend '{name}' cannot be used: {capability.problem}", code="backend_unavailable"
        )
    if request.has_image and not capability.sees_images:
        raise RequestError(
            f"backend '{name}' reads text only; drop the picture or choose another backend",
            code="unsupported_image",
            param="backend",
        )
    return Decision(name, "asked for by name")


def _with_refusals(
    reason: str, order: tuple[str, ...], chosen: str, available: Mapping[str, Capability]
) -> str:
    """The reason, and what stood in the way of the backends that would have come first."""
    passed = order[: order.index(chosen)]
    refusals = [
        f"{name}: {problem}"
        for name in passed
        if name in available and (problem := available[name].problem) is not None
    ]
    return "; ".join([reason, *refusals])


def _nothing(order: tuple[str, ...], available: Mapping[str, Capability]) -> str:
    problems = [f"{name}: {available[name].problem}" for name in order if name in available]
    return "no backend can answer this here (" + "; ".join(problems) + ")"
