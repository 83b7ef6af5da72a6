"""What every body has in common: strict types, refusals by name, and fields that are left unread."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from backends.base import RequestError

MAX_DEPTH = 128  # objects and lists inside each other
MAX_VALUES = 200_000  # texts, numbers, objects ... in one body
MAX_DIGITS = 400  # of one whole number; no field takes more than 20

Document: TypeAlias = dict[str, Any]

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read_document(body: bytes) -> Document:
    """The JSON object in ``body``.

    RequestError ``invalid_encoding``: a text in it is not Unicode. ``invalid_json``: anything else is wrong.
    """
    _check_amount(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the body is not UTF-8 (byte {error.start}); encode it so", code="invalid_encoding"
        ) from None
    try:
        document = json.loads(
            text, object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_refuse
        )
    except ValueError as error:
        raise invalid_json(f"it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise invalid_json("it must be an object")
    for path, text in _texts(document, ""):
        _check_text(text, path)
    return document


def invalid_json(reason: str) -> RequestError:
    """The error for a body that is not what it must be."""
    return RequestError(f"the body cannot be read: {reason}", code="invalid_json")


def _check_amount(body: bytes) -> None:
    """Refuse what would take much memory or time to parse, without parsing it."""
    texts = (body.count(b'"') - body.count(b'\\"')) // 2
    marks = _TEXT.sub(b"", body) if texts <= MAX_VALUES else b"," * texts
    if texts > MAX_VALUES or sum(map(marks.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise invalid_json(f"it has more than {MAX_VALUES} values")
    brackets = np.frombuffer(marks.translate(None, _NO_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    if steps.cumsum().max(initial=0) > MAX_DEPTH:
        raise invalid_json(f"it is nested deeper than {MAX_DEPTH}")


def _object(pairs: list[tuple[str, Any]]) -> Document:
    fields: Document = {}
    for key, value in pairs:
        if key in fields:
            raise invalid_json(f"the key {key!a:.60} stands twice in one object")
        fields[key] = value
    return fields


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise invalid_json(f"the number {text:.20} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise invalid_json(f"a whole number has {len(text)} digits")
    return int(text)


def _refuse(name: str) -> NoReturn:
    raise invalid_json(f"{name} is not a number in JSON")


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text in ``value``, keys too, and where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            yield from _texts(item, f"{path}.{key}" if path else key)


def _check_text(text: str, path: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        name = path if path.isascii() else ""
        raise RequestError(
            f"{name or 'a text'} has half of a surrogate pair at character {error.start}; send valid Unicode",
            code="invalid_encoding",
            param=name or None,
        ) from None


MOST_NAMED = 20  # unread fields that are named, so that the header stays short

B = TypeVar("B", bound="RequestBody")


class RequestBody(BaseModel):
    """An object of a request: types are what they are, and what is not known is kept apart."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


def parse(kind: type[B], document: Document) -> B:
    """``document`` as a ``kind``. RequestError names the first field that is not what it must be."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False), document) from None


def refuse_unsupported(document: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """RequestError ``unsupported_parameter`` for a field that asks for what is not done here.

    ``neutral``: the values, by field, that ask for nothing; null always does.
    """
    for name, values in neutral.items():
        given = document.get(name)
        # compared with their types: true is 1, and False is 0
        if given is not None and not any(type(given) is type(value) and given == value for value in values):
            raise unsupported(name, "this server does not do that; leave it out")


def unsupported(param: str, reason: str) -> RequestError:
    """The error for a field that is known and cannot be followed."""
    return RequestError(f"{param} is not supported: {reason}", code="unsupported_parameter", param=param)


def unread_fields(body: BaseModel, known: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of fields that nothing here reads: ``metadata``, ``messages.name`` ...; not too many."""
    names = tuple(dict.fromkeys(_unread(body, known)))
    return names if len(names) <= MOST_NAMED else (*names[:MOST_NAMED], "...")


def _unread(body: BaseModel, known: Mapping[str, Any], name: str = "") -> Iterator[str]:
    for key, value in (body.model_extra or {}).items():
        if key not in known and value is not None:
            yield f"{name}{_printable(key)}"
    for key in type(body).model_fields:
        value = getattr(body, key)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                yield from _unread(inner, {}, f"{name}{key}.")


def _printable(key: str) -> str:
    """A name fit for a header, whatever a client calls its fields."""
    return re.sub(r"[^A-Za-z0-9_-]", "?", key[:40]) or "?"


_WORDS = {
    "missing": "is required",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _refusal(errors: list[ErrorDetails], document: Document) -> RequestError:
    """The first error; where one value may be of several types, that of the type it came nearest to."""
    places = [_path(error["loc"], document) for error in errors]
    nearest = max((place for place in places if place.startswith(places[0])), key=len)
    same = [error for error, place in zip(errors, places, strict=True) if place == nearest]
    if same[0]["type"] == "missing":
        return RequestError(f"{nearest} is required", code="missing_parameter", param=nearest)
    words = " or ".join(dict.fromkeys(_words(error).removeprefix("must be ") for error in same))
    code = "invalid_type" if all(error["type"] in _WORDS for error in same) else "invalid_value"
    return RequestError(f"{nearest} must be {words}", code=code, param=nearest)


def _words(error: ErrorDetails) -> str:
    if error["type"] in ("literal_error", "union_tag_invalid"):
        context = error.get("ctx", {})
        return f"one of {context.get('expected') or context.get('expected_tags')}".replace("'", "")
    if error["type"] == "union_tag_not_found":
        return "an object with a type"
    return _WORDS.get(error["type"], error["msg"])


def _path(loc: tuple[int | str, ...], document: Any) -> str:
    """``messages[0].content[1].text``: what of ``loc`` are places in the document, not names of types."""
    path, value = "", document
    for step in loc:
        if isinstance(step, int) and isinstance(value, list) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
        elif isinstance(value, dict) and (step in value or step == loc[-1]):
            path, value = f"{path}.{step}" if path else str(step), value.get(step)
    return path or "body"
