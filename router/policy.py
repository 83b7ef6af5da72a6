"""Which backend answers a request: a pure decision over what is known of each; it loads nothing.

A policy is a function of the request and the `Situation`, which has a `Candidate` for each backend. Ours, by
name::

    auto            an image anywhere in the conversation: onnx, torch; text only: genai, onnx, torch,
                    or first one that decodes several answers together while there are others to give
    prefer:a,b,c    the first of these that can, and no other
    fastest         the one that takes least by what `hybrid bench` measured here
    onnx            a backend's name: that one, or an error

Another package adds one under the entry point ``hybrid.policies``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from backends.base import BackendError, RequestError
from router.types import Candidate, Decision, Request, Situation

GROUP = "hybrid.policies"
PREFERENCE = ("genai", "onnx", "torch")  # what ``auto`` takes first; for images those of them that see

Policy: TypeAlias = Callable[[Request, Situation], Decision]


def decide(request: Request, situation: Situation, policy: Policy | None = None) -> Decision:
    """The backend for ``request``, why, and which come next should it fail to load.

    RequestError: the backend named in the request cannot serve it; there is no silent switch.
    BackendError: no backend can be used on this machine.
    """
    if request.backend is not None:
        return named(request.backend)(request, situation)
    decision = (policy or auto)(request, situation)
    for name in (decision.backend, *decision.fallbacks):
        _check_usable(name, situation)
    return decision


def refusal(request: Request, candidate: Candidate) -> str | None:
    """Why a backend cannot answer ``request``, in words; None when it can."""
    if candidate.problem is not None:
        return candidate.problem
    if request.has_image and not candidate.traits.sees_images:
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
    if name in plugins():
        return _plugin(name)
    if name in known:
        return named(name)
    names = ", ".join([*_OURS, "prefer:a,b,c", *plugins(), *known])
    raise RequestError(
        f"no policy is named '{name}'; choose one of {names}", code="policy_not_found", param="policy"
    )


def auto(request: Request, situation: Situation) -> Decision:
    """The first usable by what the conversation holds, all of it and not only its last turn."""
    order = _order(request, situation)
    if situation.others and (together := _together(order, situation)):
        order = tuple(dict.fromkeys([*together, *order]))
        return _first(order, f"{_content(request)}, decoded together with others", situation)
    return _first(order, _content(request), situation)


def prefer(order: tuple[str, ...]) -> Policy:
    """The first usable of ``order``."""

    def policy(request: Request, situation: Situation) -> Decision:
        return _first(order, f"preferred, and {_content(request)}", situation)

    return policy


def fastest(request: Request, situation: Situation) -> Decision:
    """The usable one that takes least by the figures there are; those without one come last."""
    seconds = {each.backend: each.seconds for each in situation.candidates if each.seconds is not None}
    order = tuple(dict.fromkeys([*sorted(seconds, key=seconds.__getitem__), *_order(request, situation)]))
    decision = _first(order, _content(request), situation)
    if decision.backend in seconds:
        fact = f"the fastest here, about {seconds[decision.backend]:.1f} s"
    else:
        fact = "nothing was measured here, run hybrid bench"
    return replace(decision, reason=f"{fact}; {decision.reason}")


def named(name: str) -> Policy:
    """That backend, or an error that says why not."""

    def policy(request: Request, situation: Situation) -> Decision:
        _check_named(name, request, situation)
        return Decision(name, "asked for by name")

    return policy


_OURS: Mapping[str, Policy] = {"auto": auto, "fastest": fastest}


def _order(request: Request, situation: Situation) -> tuple[str, ...]:
    ranked = _ranked(PREFERENCE, situation)
    return tuple(each.backend for each in ranked if each.traits.sees_images or not request.has_image)


def _content(request: Request) -> str:
    return "the conversation has an image" if request.has_image else "text only"


def _ranked(order: tuple[str, ...], situation: Situation) -> list[Candidate]:
    """The candidates of ``order`` that there are, in that order."""
    known = {each.backend: each for each in situation.candidates}
    return [known[name] for name in order if name in known]


def _together(order: tuple[str, ...], situation: Situation) -> list[str]:
    """Those of ``order`` that can answer the request and others in the same runs."""
    ranked = _ranked(order, situation)
    return [each.backend for each in ranked if each.traits.decodes_together and each.refusal is None]


def _first(order: tuple[str, ...], reason: str, situation: Situation) -> Decision:
    """The first of ``order`` that can, and what stood in the way of those before it."""
    ranked = _ranked(order, situation)
    usable = [each.backend for each in ranked if each.refusal is None]
    refusals = [f"{each.backend}: {each.refusal}" for each in ranked if each.refusal is not None]
    if not usable:
        raise BackendError(
            f"no backend can answer this here ({'; '.join(refusals)})", code="backend_unavailable"
        )
    before = [each.backend for each in ranked].index(usable[0])  # each of them refused
    return Decision(usable[0], "; ".join([reason, *refusals[:before]]), tuple(usable[1:]))


def _check_named(name: str, request: Request, situation: Situation) -> None:
    candidate = situation.candidate(name)
    if candidate is None:
        raise _unknown(name, tuple(each.backend for each in situation.candidates))
    if candidate.problem is not None:
        raise BackendError(
            f"backend '{name}' cannot be used: {candidate.problem}", code="backend_unavailable"
        )
    if request.has_image and not candidate.traits.sees_images:
        raise RequestError(
            f"backend '{name}' reads text only; drop the image or choose another backend",
            code="unsupported_image",
            param="backend",
        )


def _check_usable(name: str, situation: Situation) -> None:
    """A policy of another package may choose what cannot be."""
    candidate = situation.candidate(name)
    problem = "there is no such backend" if candidate is None else candidate.refusal
    if problem is not None:
        raise BackendError(f"the policy chose '{name}': {problem}", code="backend_unavailable")


def _known(name: str, known: tuple[str, ...]) -> str:
    if name in known:
        return name
    raise _unknown(name, known)


def _unknown(name: str, known: tuple[str, ...]) -> RequestError:
    return RequestError(
        f"no backend is named '{name}'; choose one of {', '.join(known)}",
        code="backend_not_found",
        param="backend",
    )


@cache
def plugins() -> Mapping[str, EntryPoint]:
    """Policies of other packages; looked for once."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _plugin(name: str) -> Policy:
    try:
        policy: Policy = plugins()[name].load()
    except (ImportError, AttributeError) as error:
        raise BackendError(
            f"policy '{name}' cannot be imported: {error}", code="backend_unavailable"
        ) from None
    return policy
