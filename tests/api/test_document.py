"""The body of a request, read as strictly as a door should."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import RequestError
from benchmarks.load.wrong_bodies import BROKEN
from router.api.parse import MAX_DEPTH, MAX_VALUES, read_document
from tests.api.parsing import refused


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_is_not_plain_json_is_refused(name: str) -> None:
    code, _, message = refused(lambda: read_document(BROKEN[name]))
    assert code == "invalid_json"
    assert message.startswith("the body cannot be read: ")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"a": "\xff"}', None),
        (rb'{"a": [1, {"b": "x\ud800"}]}', "a[1].b"),
        (rb'{"\udfff": 1}', None),
        (b'{"\xc3\xa9": "\\ud800"}', None),
    ],
)
def test_a_text_that_is_not_unicode_is_refused(body: bytes, param: str | None) -> None:
    code, found, _ = refused(lambda: read_document(body))
    assert (code, found) == ("invalid_encoding", param)


def test_what_is_unusual_and_right_is_read() -> None:
    deep = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert read_document(deep)["a"]["a"]
    text = 'nul \0, "quoted", \u202e, {[[[,,, \\ \U0001f600'
    assert read_document(json.dumps({"a": text}).encode()) == {"a": text}
    assert read_document(json.dumps({"a": text}, ensure_ascii=False).encode()) == {"a": text}
    quotes = '"' * (2 * MAX_VALUES)
    assert read_document(json.dumps({"a": quotes}).encode()) == {"a": quotes}
    assert read_document(b'{"a": 1e300, "b": -12, "c": true, "d": null}') == {
        "a": 1e300,
        "b": -12,
        "c": True,
        "d": None,
    }


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u0a 1e-nt', max_size=60).map(str.encode))
def test_any_body_is_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(read_document(body), dict)
    except RequestError as error:
        assert error.code in ("invalid_json", "invalid_encoding")  # noqa: PT017
