"""Which backend answers a request: a pure decision over what each can do here; it loads nothing.

A policy is a function of the request and the `Outlook`. Ours, by name::

    auto            an image anywhere in the conversation: onnx, torch; text only: genai, onnx, torch,
                    or first one that decodes several answers together while there are others to give
    prefer:a,b,c    the first of these that can, and no other
    fastest         the one that takes least by what `hybrid bench` measured here
    onnx            a backend's name: that one, or an error

Another package adds one under the entry point ``hybrid.policies``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from backends.base import BackendError, Capability, RequestError
from router.types import Decision, Request

GROUP = "hybrid.policies"
FOR_IMAGES = ("onnx", "torch")
FOR_TEXT = ("genai", "onnx", "torch")


@dataclass(frozen=True)
class Outlook:
    """What is known of this machine and of one request to it."""

    available: Mapping[str, Capability]
    seconds: Mapping[str, float] = field(default_factory=dict)  # each backend would take, loading included
    others: int = 0  # requests that are being answered, or wait for it, at the same time


Policy: TypeAlias = Callable[[Request, Outlook], Decision]


def decide(request: Request, outlook: Outlook, policy: Policy | None = None) -> Decision:
    """The backend for ``request``, why, and which come next should it fail to load.

    RequestError: the backend named in the request cannot serve it; there is no silent switch.
    BackendError: no backend can be used on this machine.
    """
    if request.backend is not None:
        return named(request.backend)(request, outlook)
    decision = (policy or auto)(request, outlook)
    for name in (decision.backend, *decision.fallbacks):
        _check_usable(name, request, outlook)
    return decision


def refusal(request: Request, capability: Capability) -> str | None:
    """Why a backend cannot answer ``request``, in words; None when it can."""
    if capability.problem is not None:
        return capability.problem
    if request.has_image and not capability.traits.sees_images:
        return "it reads text only"
    return None


def find_policy(name: str, backends: Iterable[str]) -> Policy:
    """The policy called ``name``; RequestError names those there are."""
    known = tuple(backends)
    kind, colon, rest = name.partition(":")
    if name in _OURS:
        return _OURS[name]
    if kind == "prefer" and colon:
        return prefer(tuple(_known(part.strip(), known) for part in rest.split(",")))
    if name in _plugins():
        return _plugin(name)
    if name in known:
        return named(name)
    names = ", ".join([*_OURS, "prefer:a,b,c", *_plugins(), *known])
    raise RequestError(
        f"no policy is named '{name}'; choose one of {names}", code="policy_not_found", param="policy"
    )


def auto(request: Request, outlook: Outlook) -> Decision:
    """The first usable by what the conversation holds, all of it and not only its last turn."""
    order = _order(request)
    if outlook.others and (together := _together(order, request, outlook)):
        order = tuple(dict.fromkeys([*together, *order]))
        return _first(order, f"{_what(request)}, decoded together with others", request, outlook)
    return _first(order, _what(request), request, outlook)


def prefer(order: tuple[str, ...]) -> Policy:
    """The first usable of ``order``."""

    def policy(request: Request, outlook: Outlook) -> Decision:
        return _first(order, f"preferred, and {_what(request)}", request, outlook)

    return policy


def fastest(request: Request, outlook: Outlook) -> Decision:
    """The usable one that takes least by the figures there are; those without one come last."""
    measured = sorted(outlook.seconds, key=outlook.seconds.__getitem__)
    order = tuple(dict.fromkeys([*measured, *_order(request)]))
    decision = _first(order, _what(request), request, outlook)
    if (seconds := outlook.seconds.get(decision.backend)) is not None:
        return replace(decision, reason=f"the fastest here, about {seconds:.1f} s; {decision.reason}")
    advice = "nothing was measured here, run hybrid bench"
    return replace(decision, reason=f"{advice}; {decision.reason}")


def named(name: str) -> Policy:
    """That backend, or an error that says why not."""

    def policy(request: Request, outlook: Outlook) -> Decision:
        _check_named(name, request, outlook.available)
        return Decision(name, "asked for by name")

    return policy


_OURS: Mapping[str, Policy] = {"auto": auto, "fastest": fastest}


def _order(request: Request) -> tuple[str, ...]:
    return FOR_IMAGES if request.has_image else FOR_TEXT


def _together(order: tuple[str, ...], request: Request, outlook: Outlook) -> list[str]:
    """Those of ``order`` that can answer ``request`` and others in the same runs."""
    known = {name: outlook.available[name] for name in order if name in outlook.available}
    together = {name: can for name, can in known.items() if can.traits.decodes_together}
    return [name for name, can in together.items() if refusal(request, can) is None]


def _what(request: Request) -> str:
    return "the conversation has an image" if request.has_image else "text only"


def _first(order: tuple[str, ...], reason: str, request: Request, outlook: Outlook) -> Decision:
    """The first of ``order`` that can, and what stood in the way of those before it."""
    known = [name for name in order if name in outlook.available]
    why_not = {name: refusal(request, outlook.available[name]) for name in known}
    usable = [name for name in known if why_not[name] is None]
    if not usable:
        problems = "; ".join(f"{name}: {problem}" for name, problem in why_not.items())
        raise BackendError(f"no backend can answer this here ({problems})", code="backend_unavailable")
    passed = [f"{name}: {why_not[name]}" for name in known[: known.index(usable[0])]]
    return Decision(usable[0], "; ".join([reason, *passed]), tuple(usable[1:]))


def _check_named(name: str, request: Request, available: Mapping[str, Capability]) -> None:
    capability = available[_known(name, tuple(available))]
    if capability.problem is not None:
        raise BackendError(
            f"backend '{name}' cannot be used: {capability.problem}", code="backend_unavailable"
        )
    if request.has_image and not capability.traits.sees_images:
        raise RequestError(
            f"backend '{name}' reads text only; drop the image or choose another backend",
            code="unsupported_image",
            param="backend",
        )


def _check_usable(name: str, request: Request, outlook: Outlook) -> None:
    """A policy of another package may choose what cannot be."""
    capability = outlook.available.get(name)
    problem = "there is no such backend" if capability is None else refusal(request, capability)
    if problem is not None:
        raise BackendError(f"the policy chose '{name}': {problem}", code="backend_unavailable")


def _known(name: str, known: tuple[str, ...]) -> str:
    if name in known:
        return name
    raise RequestError(
        f"no backend is named '{name}'; choose one of {', '.join(known)}",
        code="backend_not_found",
        param="backend",
    )


@cache
def _plugins() -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _plugin(name: str) -> Policy:
    try:
        policy: Policy = _plugins()[name].load()
    except (ImportError, AttributeError) as error:
        raise BackendError(
            f"policy '{name}' cannot be imported: {error}", code="backend_unavailable"
        ) from None
    return policy
