"""Which backend answers: a pure function."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import router.policy as policy_module
from backends.base import BackendError, Capability, RequestError, Traits
from router.policy import Outlook, decide, find_policy
from router.types import Decision, Message, Picture, Request

IMAGE = Picture(np.zeros((32, 32, 3), np.uint8))
TEXT = Request((Message.of("user", "hello"),))
IMAGED = Request((Message.of("user", IMAGE, "what?"),))
LATER = Request(
    (Message.of("user", IMAGE, "what?"), Message.of("assistant", "red"), Message.of("user", "and where?"))
)
ALL = {
    "torch": Capability(Traits(True)),
    "genai": Capability(Traits(False)),
    "onnx": Capability(Traits(True)),
    "scripted": Capability(Traits(True)),
}


def without(*names: str) -> dict[str, Capability]:
    return {name: Capability(c.traits, "not installed" if name in names else None) for name, c in ALL.items()}


@pytest.mark.parametrize(
    ("request_", "available", "backend", "fallbacks"),
    [
        (TEXT, ALL, "genai", ("onnx", "torch")),
        (TEXT, without("genai"), "onnx", ("torch",)),
        (TEXT, without("genai", "onnx"), "torch", ()),
        (IMAGED, ALL, "onnx", ("torch",)),
        (IMAGED, without("onnx"), "torch", ()),
        (LATER, ALL, "onnx", ("torch",)),
    ],
)
def test_auto_takes_the_first_usable(
    request_: Request, available: dict[str, Capability], backend: str, fallbacks: tuple[str, ...]
) -> None:
    decision = decide(request_, Outlook(available))
    assert (decision.backend, decision.fallbacks) == (backend, fallbacks)


def test_auto_answers_texts_together_where_there_are_several() -> None:
    together = ALL | {"onnx": Capability(Traits(True, decodes_together=True))}
    decision = decide(TEXT, Outlook(together, others=1))
    assert (decision.backend, decision.fallbacks) == ("onnx", ("genai", "torch"))
    assert decision.reason == "text only, decoded together with others"
    assert decide(TEXT, Outlook(together)).backend == "genai"
    assert decide(TEXT, Outlook(ALL, others=1)).backend == "genai"
    broken = together | {"onnx": Capability(Traits(True, decodes_together=True), "not installed")}
    assert decide(TEXT, Outlook(broken, others=1)).backend == "genai"
    assert decide(IMAGED, Outlook(together, others=1)).backend == "onnx"


def test_the_reason_names_what_decided() -> None:
    assert decide(TEXT, Outlook(ALL)).reason == "text only"
    assert decide(LATER, Outlook(ALL)).reason == "the conversation has an image"
    assert "genai: not installed" in decide(TEXT, Outlook(without("genai"))).reason


def test_a_named_backend_is_taken() -> None:
    named = Request(TEXT.messages, backend="scripted")
    assert decide(named, Outlook(ALL)).backend == "scripted"
    assert decide(named, Outlook(ALL)).fallbacks == ()


def test_a_named_backend_that_cannot_see_refuses_an_image() -> None:
    with pytest.raises(RequestError, match="backend 'genai' reads text only"):
        decide(Request(LATER.messages, backend="genai"), Outlook(ALL))


def test_a_named_backend_that_cannot_be_used_is_an_error_not_a_switch() -> None:
    with pytest.raises(BackendError, match="backend 'onnx' cannot be used: not installed"):
        decide(Request(TEXT.messages, backend="onnx"), Outlook(without("onnx")))


def test_an_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RequestError, match="no backend is named 'gpu'; choose one of torch, genai") as raised:
        decide(Request(TEXT.messages, backend="gpu"), Outlook(ALL))
    assert raised.value.param == "backend"


def test_nothing_usable_says_why_for_each() -> None:
    with pytest.raises(BackendError, match="onnx: not installed; torch: not installed"):
        decide(IMAGED, Outlook(without("onnx", "torch")))


def by(name: str, request: Request, outlook: Outlook) -> Decision:
    return decide(request, outlook, find_policy(name, ALL))


def test_a_preferred_backend_is_taken_and_one_that_cannot_is_passed_over_with_the_reason() -> None:
    decision = by("prefer:torch,genai", TEXT, Outlook(ALL))
    assert decision == Decision("torch", "preferred, and text only", ("genai",))
    decision = by("prefer: genai, torch", IMAGED, Outlook(ALL))
    assert (decision.backend, decision.fallbacks) == ("torch", ())
    assert decision.reason == "preferred, and the conversation has an image; genai: it reads text only"


def test_no_other_than_the_preferred_answers() -> None:
    with pytest.raises(BackendError, match=r"no backend can answer this here \(genai: it reads text only\)"):
        by("prefer:genai", IMAGED, Outlook(ALL))


def test_the_fastest_is_the_one_that_takes_least_where_it_was_measured() -> None:
    seconds = {"genai": 3.0, "onnx": 2.5, "torch": 9.0}
    decision = by("fastest", TEXT, Outlook(ALL, seconds))
    assert decision == Decision("onnx", "the fastest here, about 2.5 s; text only", ("genai", "torch"))
    assert by("fastest", TEXT, Outlook(ALL, {**seconds, "genai": 1.0})).backend == "genai"
    assert by("fastest", IMAGED, Outlook(ALL, {**seconds, "genai": 1.0})).backend == "onnx"
    assert by("fastest", TEXT, Outlook(without("onnx"), seconds)).backend == "genai"


def test_without_figures_the_fastest_is_the_usual_one_and_says_so() -> None:
    decision = by("fastest", TEXT, Outlook(ALL))
    assert (decision.backend, decision.fallbacks) == ("genai", ("onnx", "torch"))
    assert decision.reason == "nothing was measured here, run hybrid bench; text only"
    assert by("fastest", TEXT, Outlook(ALL, {"torch": 9.0})).backend == "torch"


def test_a_backend_as_policy_is_taken_or_refused() -> None:
    assert by("torch", TEXT, Outlook(ALL)) == Decision("torch", "asked for by name")
    with pytest.raises(RequestError, match="backend 'genai' reads text only"):
        by("genai", IMAGED, Outlook(ALL))


def test_the_backend_of_the_request_wins_over_the_policy() -> None:
    named = Request(TEXT.messages, backend="scripted")
    assert decide(named, Outlook(ALL), find_policy("torch", ALL)).backend == "scripted"


@pytest.mark.parametrize("name", ["", "quickest", "prefer", "prefer:", "prefer:onnx,gpu", "auto,fastest"])
def test_an_unknown_policy_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(RequestError, match="choose one of"):
        find_policy(name, ALL)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entries = [
        EntryPoint("longest", "tests.test_policy:longest", "hybrid.policies"),
        EntryPoint("broken", "no_such_package:policy", "hybrid.policies"),
    ]
    monkeypatch.setattr("router.policy.entry_points", lambda group: entries)
    policy_module._plugins.cache_clear()
    yield
    policy_module._plugins.cache_clear()


def longest(request: Request, outlook: Outlook) -> Decision:
    return Decision(max(outlook.available, key=len), "it has the longest name")


@pytest.mark.usefixtures("plugins")
def test_another_package_can_add_a_policy() -> None:
    assert by("longest", TEXT, Outlook(ALL)) == Decision("scripted", "it has the longest name")
    with pytest.raises(BackendError, match="the policy chose 'scripted': not installed"):
        by("longest", TEXT, Outlook(without("scripted")))
    with pytest.raises(BackendError, match=r"policy 'broken' cannot be imported: .*no_such_package"):
        by("broken", TEXT, Outlook(ALL))
