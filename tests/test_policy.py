"""Which backend answers: a pure function."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import router.policy as policy_module
from backends.base import BackendError, RequestError, Traits
from router.policy import decide, find_policy, refusal
from router.types import Candidate, Decision, Estimate, Message, Picture, Request, Situation

IMAGE = Picture(np.zeros((32, 32, 3), np.uint8))
TEXT = Request((Message.of("user", "hello"),))
IMAGED = Request((Message.of("user", IMAGE, "what?"),))
LATER = Request(
    (Message.of("user", IMAGE, "what?"), Message.of("assistant", "red"), Message.of("user", "and where?"))
)
ALL = {
    "torch": Candidate("torch", Traits(True)),
    "genai": Candidate("genai", Traits(False)),
    "onnx": Candidate("onnx", Traits(True)),
    "scripted": Candidate("scripted", Traits(True)),
}


def without(*names: str) -> dict[str, Candidate]:
    return ALL | {name: replace(ALL[name], problem="not installed") for name in names}


def timed(rows: dict[str, Candidate], **seconds: float) -> dict[str, Candidate]:
    """Those of ``seconds`` take that long, a second of it to load."""
    times = {name: Estimate(1.0, 0.1, value - 1.0) for name, value in seconds.items()}
    return rows | {name: replace(rows[name], estimate=estimate) for name, estimate in times.items()}


def situation(request: Request, rows: dict[str, Candidate], others: int = 0) -> Situation:
    candidates = (replace(row, refusal=refusal(request, row)) for row in rows.values())
    return Situation(tuple(candidates), others)


def decided(request: Request, rows: dict[str, Candidate], others: int = 0) -> Decision:
    return decide(request, situation(request, rows, others))


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
    request_: Request, available: dict[str, Candidate], backend: str, fallbacks: tuple[str, ...]
) -> None:
    decision = decided(request_, available)
    assert (decision.backend, decision.fallbacks) == (backend, fallbacks)


def test_auto_answers_texts_together_where_there_are_several() -> None:
    together = ALL | {"onnx": Candidate("onnx", Traits(True, decodes_together=True))}
    decision = decided(TEXT, together, others=1)
    assert (decision.backend, decision.fallbacks) == ("onnx", ("genai", "torch"))
    assert decision.reason == "text only, decoded together with others"
    assert decided(TEXT, together).backend == "genai"
    assert decided(TEXT, ALL, others=1).backend == "genai"
    broken = together | {"onnx": replace(together["onnx"], problem="not installed")}
    assert decided(TEXT, broken, others=1).backend == "genai"
    assert decided(IMAGED, together, others=1).backend == "onnx"


def test_the_reason_names_what_decided() -> None:
    assert decided(TEXT, ALL).reason == "text only"
    assert decided(LATER, ALL).reason == "the conversation has an image"
    assert "genai: not installed" in decided(TEXT, without("genai")).reason


def test_a_named_backend_is_taken() -> None:
    named = Request(TEXT.messages, backend="scripted")
    assert decided(named, ALL).backend == "scripted"
    assert decided(named, ALL).fallbacks == ()


def test_a_named_backend_that_cannot_see_refuses_an_image() -> None:
    with pytest.raises(RequestError, match="backend 'genai' reads text only"):
        decided(Request(LATER.messages, backend="genai"), ALL)


def test_a_named_backend_that_cannot_be_used_is_an_error_not_a_switch() -> None:
    with pytest.raises(BackendError, match="backend 'onnx' cannot be used: not installed"):
        decided(Request(TEXT.messages, backend="onnx"), without("onnx"))


def test_an_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RequestError, match="no backend is named 'gpu'; choose one of torch, genai") as raised:
        decided(Request(TEXT.messages, backend="gpu"), ALL)
    assert raised.value.param == "backend"


def test_nothing_usable_says_why_for_each() -> None:
    with pytest.raises(BackendError, match="onnx: not installed; torch: not installed"):
        decided(IMAGED, without("onnx", "torch"))


def by(name: str, request: Request, rows: dict[str, Candidate]) -> Decision:
    return decide(request, situation(request, rows), find_policy(name, ALL))


def test_a_preferred_backend_is_taken_and_one_that_cannot_is_passed_over_with_the_reason() -> None:
    decision = by("prefer:torch,genai", TEXT, ALL)
    assert decision == Decision("torch", "preferred, and text only", ("genai",))
    decision = by("prefer: genai, torch", IMAGED, ALL)
    assert (decision.backend, decision.fallbacks) == ("torch", ())
    assert decision.reason == "preferred, and the conversation has an image; genai: it reads text only"


def test_no_other_than_the_preferred_answers() -> None:
    with pytest.raises(BackendError, match=r"no backend can answer this here \(genai: it reads text only\)"):
        by("prefer:genai", IMAGED, ALL)


def test_the_fastest_is_the_one_that_takes_least_where_it_was_measured() -> None:
    seconds = {"genai": 3.0, "onnx": 2.5, "torch": 9.0}
    decision = by("fastest", TEXT, timed(ALL, **seconds))
    assert decision == Decision("onnx", "the fastest here, about 2.5 s; text only", ("genai", "torch"))
    assert by("fastest", TEXT, timed(ALL, **{**seconds, "genai": 1.0})).backend == "genai"
    assert by("fastest", IMAGED, timed(ALL, **{**seconds, "genai": 1.0})).backend == "onnx"
    assert by("fastest", TEXT, timed(without("onnx"), **seconds)).backend == "genai"


def test_loading_counts_where_it_is_needed() -> None:
    rows = timed(ALL, genai=3.0, onnx=2.5)
    rows["genai"] = replace(rows["genai"], loaded=True)
    assert (rows["genai"].seconds, rows["onnx"].seconds, rows["torch"].seconds) == (2.0, 2.5, None)
    assert by("fastest", TEXT, rows).backend == "genai"
    assert by("fastest", TEXT, rows | {"genai": replace(rows["genai"], loaded=False)}).backend == "onnx"


def test_without_figures_the_fastest_is_the_usual_one_and_says_so() -> None:
    decision = by("fastest", TEXT, ALL)
    assert (decision.backend, decision.fallbacks) == ("genai", ("onnx", "torch"))
    assert decision.reason == "nothing was measured here, run hybrid bench; text only"
    assert by("fastest", TEXT, timed(ALL, torch=9.0)).backend == "torch"


def test_a_backend_as_policy_is_taken_or_refused() -> None:
    assert by("torch", TEXT, ALL) == Decision("torch", "asked for by name")
    with pytest.raises(RequestError, match="backend 'genai' reads text only"):
        by("genai", IMAGED, ALL)


def test_the_backend_of_the_request_wins_over_the_policy() -> None:
    named = Request(TEXT.messages, backend="scripted")
    assert decide(named, situation(named, ALL), find_policy("torch", ALL)).backend == "scripted"


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
    policy_module.plugins.cache_clear()
    yield
    policy_module.plugins.cache_clear()


def longest(request: Request, situation: Situation) -> Decision:
    names = [candidate.backend for candidate in situation.candidates]
    return Decision(max(names, key=len), "it has the longest name")


@pytest.mark.usefixtures("plugins")
def test_another_package_can_add_a_policy() -> None:
    assert by("longest", TEXT, ALL) == Decision("scripted", "it has the longest name")
    with pytest.raises(BackendError, match="the policy chose 'scripted': not installed"):
        by("longest", TEXT, without("scripted"))
    with pytest.raises(BackendError, match=r"policy 'broken' cannot be imported: .*no_such_package"):
        by("broken", TEXT, ALL)
