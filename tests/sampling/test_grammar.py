"""Answers held to a JSON schema, by masks on the scores."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import BackendError, Prompt, RequestError
from backends.scripted import Script, ScriptedBackend
from router import Message, Request, Router, Runtime, Sampling
from router.cli import run
from router.detokenize import TextStream
from router.generate import generate
from router.models import find
from router.prompt import PromptBuilder
from router.sampling import ANY_OBJECT, FREE, Schemas
from router.sampling.grammar import MAX_SCHEMA_CHARACTERS, MAX_SCHEMA_DEPTH
from router.types import Chunk

BUILDER = PromptBuilder.read(find().folder)
VOCAB = BUILDER.config.text.vocab
SCHEMAS = Schemas(BUILDER.tokenizer, VOCAB, BUILDER.eos)
COLOURS = {
    "type": "object",
    "properties": {
        "colours": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 2, "maxItems": 3},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["colours", "count"],
    "additionalProperties": False,
}


def ids(text: str) -> tuple[int, ...]:
    return tuple(BUILDER.tokenizer.encode(text, add_special_tokens=False).ids)


def answer(schema: object, text: str = "I see red.", **sampling: object) -> list[Chunk]:
    """What comes of a backend that wants to say ``text``."""
    backend = ScriptedBackend(Script((*ids(text), min(BUILDER.eos))), VOCAB)
    choice = Sampling(**{"temperature": 0.0, "max_tokens": 200, **sampling})  # type: ignore[arg-type]
    constraint = FREE if schema is None else SCHEMAS.constraint(json.dumps(schema))
    text = TextStream(BUILDER.tokenizer.decode)
    prompt = Prompt(np.array([1, 2, 3]))
    return list(generate(backend, prompt, choice, text, BUILDER.eos, constraint=constraint))


def joined(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_model_wants_to_say_the_answer_is_json_of_the_schema(seed: int) -> None:
    chunks = answer(COLOURS, temperature=2.0, seed=seed)
    values = json.loads(joined(chunks))
    assert list(values) == ["colours", "count"]
    assert set(values["colours"]) <= {"red", "green"}
    assert 2 <= len(values["colours"]) <= 3
    assert 0 <= values["count"] <= 99
    assert chunks[-1].finish == "stop"


def test_without_the_schema_the_same_model_says_what_it_wants() -> None:
    assert joined(answer(None)) == "I see red."


def test_a_model_that_writes_the_schema_by_itself_is_not_disturbed() -> None:
    text = '{"colours": ["red", "green"], "count": 2}'
    assert joined(answer(COLOURS, text)) == text


def test_an_answer_that_is_whole_ends_without_another_step() -> None:
    chunks = answer({"enum": ["red"]}, '"red"')
    assert joined(chunks) == '"red"'
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert BUILDER.eos.isdisjoint(tokens)
    assert chunks[-1].finish == "stop"
    exactly = answer({"enum": ["red"]}, '"red"', max_tokens=len(tokens))
    assert (joined(exactly), exactly[-1].finish) == ('"red"', "stop")


def test_an_answer_that_does_not_fit_is_cut_and_says_so() -> None:
    assert answer(COLOURS, max_tokens=3)[-1].finish == "length"


def test_minimum_tokens_and_ignored_ends_do_not_break_the_form() -> None:
    for sampling in ({"min_tokens": 150}, {"ignore_eos": True}):
        assert json.loads(joined(answer({"enum": ["red"]}, **sampling))) == "red"


def test_an_integer_may_end_where_the_model_ends_it() -> None:
    assert joined(answer({"type": "integer"}, "42")) == "42"


def test_penalties_and_filters_choose_among_what_is_allowed() -> None:
    chunks = answer(COLOURS, temperature=1.0, top_k=1, top_p=0.1, min_p=0.9, presence_penalty=2.0, seed=1,
                  repetition_penalty=10.0, logit_bias=((ids("red")[0], -100.0),))  # fmt: skip
    assert set(json.loads(joined(chunks))) == {"colours", "count"}


def test_there_is_one_blank_at_most_between_two_marks() -> None:
    constraint = SCHEMAS.constraint(ANY_OBJECT)
    (blank,) = ids(" ")
    constraint.accept(*ids("{"))
    assert np.isfinite(constraint.masked(np.zeros(VOCAB, np.float32))[blank])
    constraint.accept(blank)
    assert np.isneginf(constraint.masked(np.zeros(VOCAB, np.float32))[blank])


def test_control_tokens_are_never_part_of_a_text() -> None:
    constraint = SCHEMAS.constraint('{"type": "string"}')
    for token in ids('"a'):
        allowed = np.isfinite(constraint.masked(np.zeros(VOCAB, np.float32)))
        assert not allowed[list(BUILDER.control_ids)].any()
        constraint.accept(token)
    assert allowed.sum() > 100


def test_scores_are_masked_on_a_copy_of_their_own_length() -> None:
    for length in (VOCAB - 100, VOCAB, VOCAB + 100):
        logits = np.zeros(length, np.float32)
        masked = SCHEMAS.constraint(ANY_OBJECT).masked(logits)
        assert masked.shape == (length,)
        assert np.flatnonzero(np.isfinite(masked)).tolist() == list(ids("{")), "an object begins so"
        assert not logits.any()


def test_a_score_that_is_not_a_number_is_seen_though_its_token_is_not_allowed() -> None:
    backend = ScriptedBackend(Script(ids("{}"), fault="nan"), VOCAB)
    sampling = Sampling(temperature=0.0, max_tokens=5)
    stream = TextStream(BUILDER.tokenizer.decode)
    constraint = SCHEMAS.constraint(ANY_OBJECT)
    assert np.isneginf(constraint.masked(np.zeros(VOCAB, np.float32))[0])
    with pytest.raises(BackendError) as caught:
        list(generate(backend, Prompt(np.array([1])), sampling, stream, BUILDER.eos, constraint=constraint))
    assert caught.value.code == "numerical_error"


REFUSED = {
    "not JSON": "{",
    "not an object": "[]",
    "an unknown type": '{"type": "colour"}',
    "a keyword that cannot be held to": '{"not": {"type": "string"}}',
    "one that asks to be lenient": '{"not": {"type": "string"}, "x-guidance": {"lenient": true}}',
    "what nothing satisfies": '{"enum": []}',
    "what never ends": '{"$ref": "#"}',
    "a document elsewhere": '{"$ref": "http://127.0.0.1:9/schema"}',
    "a file": '{"$ref": "file:///etc/hostname"}',
    "too long": '{"description": "' + "x" * MAX_SCHEMA_CHARACTERS + '"}',
    "too deep": '{"items":' * (MAX_SCHEMA_DEPTH + 1) + "{}" + "}" * (MAX_SCHEMA_DEPTH + 1),
    "far too deep": '{"items":' * 5000 + "{}" + "}" * 5000,
    "a sum of many remainders": '{"type": "integer", "multipleOf": 828489391}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_held_to_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        SCHEMAS.constraint(REFUSED[name])
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "json_schema")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_schema_at_the_limits_is_read() -> None:
    deep = '{"items":' * (MAX_SCHEMA_DEPTH - 1) + "{}" + "}" * (MAX_SCHEMA_DEPTH - 1)
    text = '{"description": ""}'
    for schema in (deep, text.replace('""', '"' + "x" * (MAX_SCHEMA_CHARACTERS - len(text)) + '"')):
        assert not SCHEMAS.constraint(schema).complete


def test_a_schema_that_takes_too_much_work_ends_the_answer_with_an_error() -> None:
    wide = {"anyOf": [{"properties": {f"p{i}": {"type": "string"} for i in range(20)}} for _ in range(100)]}
    constraint = SCHEMAS.constraint(json.dumps({"type": "object", **wide}))

    def write() -> None:
        for token in ids('{"p1": "a"'):
            constraint.accept(token)
            constraint.masked(np.zeros(VOCAB, np.float32))

    with pytest.raises(RequestError, match="cannot be used"):
        write()


SCHEMA_PIECES = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "integer", "minimum": -(10**18)},
            {"type": "number"},
            {"enum": ["a", 1, None, {"b": []}]},
            {"const": "\u20ac\U0001f600"},
            {"type": "string", "pattern": "^(a|b){1,50}c*$", "maxLength": 10**9},
            {"type": "string", "pattern": "(.*a){40}"},
            {"type": ["string", "null"], "format": "date-time"},
            {"$ref": "#/$defs/again"},
            {"$ref": "#"},
            {},
        ]
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.text(max_size=3), inner, max_size=4).map(
            lambda named: {"type": "object", "properties": named, "required": list(named)[:2]}
        ),
        inner.map(lambda item: {"type": "array", "items": item, "minItems": 2, "maxItems": 10**6}),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"anyOf": items}),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"allOf": items}),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"oneOf": items}),
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(SCHEMA_PIECES, st.integers(0, 2**32 - 1))
def test_any_schema_is_held_to_or_refused_and_nothing_else(schema: dict, seed: int) -> None:
    whole = {**schema, "$defs": {"again": {"type": "array", "items": {"$ref": "#"}}}}
    random = np.random.default_rng(seed)
    try:
        constraint = SCHEMAS.constraint(json.dumps(whole))
        for _ in range(40):
            if constraint.complete:
                return
            allowed = np.flatnonzero(np.isfinite(constraint.masked(np.zeros(VOCAB, np.float32))))
            assert allowed.size
            constraint.accept(int(random.choice(allowed)))
    except RequestError as error:
        assert error.code == "invalid_json_schema"  # noqa: PT017


@pytest.fixture
def scripted(monkeypatch) -> None:
    text = '{"colours": ["red", "red"], "count": 7}'
    monkeypatch.setenv("HYBRID_SCRIPT", json.dumps({"tokens": [*ids("Hello. " + text), min(BUILDER.eos)]}))


def test_the_router_holds_an_answer_to_the_schema_of_its_request(scripted) -> None:
    messages = (Message.of("user", "Which colours?"),)
    router = Router(runtime=Runtime())
    free = router.complete(Request(messages, backend="scripted"))
    held = router.complete(
        Request(messages, Sampling(temperature=1.5, seed=3), "scripted", json_schema=json.dumps(COLOURS))
    )
    assert free.text.startswith("Hello.")
    assert set(json.loads(held.text)) == {"colours", "count"}


def test_a_schema_is_given_on_the_command_line_or_in_a_file(scripted, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"enum": ["red"]}))
    ask = ["generate", "-m", "scenes", "--backend", "scripted", "-n", "20", "Which?"]
    for schema in ('{"enum": ["red"]}', str(file)):
        assert run([*ask, "-j", schema]) == 0
        assert capsys.readouterr().out == '"red"\n'
    assert run([*ask, "-j", '{"type": "colour"}']) == 2
    assert "Invalid type: colour" in capsys.readouterr().err
    file.write_bytes(b"\xff")
    for name in (str(tmp_path / "none.json"), str(file), str(tmp_path)):
        assert run([*ask, "--json-schema", name]) == 2
        assert "cannot be read" in capsys.readouterr().err
