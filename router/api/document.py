"""The body of a request as JSON, read as strictly as a door should.

A parser takes what no client means (keys that stand twice, NaN, numbers beyond all bounds, halves of
characters), and lets a small body grow to many times its size; here such a body is refused before that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeAlias

import numpy as np

from backends.base import RequestError

MAX_DEPTH = 128  # objects and lists inside each other
MAX_VALUES = 200_000  # texts, numbers, objects ... in one body
MAX_DIGITS = 400  # of one whole number; no field takes more than 20

Document: TypeAlias = dict[str, Any]

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read(body: bytes) -> Document:
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
        raise invalid(f"it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise invalid("it must be an object")
    for path, found in _texts(document, ""):
        _check_text(found, path)
    return document


def invalid(reason: str) -> RequestError:
    """The error for a body that is not what it must be."""
    return RequestError(f"the body cannot be read: {reason}", code="invalid_json")


def _check_amount(body: bytes) -> None:
    """Refuse what would take much memory or time to parse, without parsing it."""
    texts = (body.count(b'"') - body.count(b'\\"')) // 2
    marks = _TEXT.sub(b"", body) if texts <= MAX_VALUES else b"," * texts
    if texts > MAX_VALUES or sum(map(marks.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise invalid(f"it has more than {MAX_VALUES} values")
    brackets = np.frombuffer(marks.translate(None, _NO_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    if steps.cumsum().max(initial=0) > MAX_DEPTH:
        raise invalid(f"it is nested deeper than {MAX_DEPTH}")


def _object(pairs: list[tuple[str, Any]]) -> Document:
    found: Document = {}
    for key, value in pairs:
        if key in found:
            raise invalid(f"the key {key!a:.60} stands twice in one object")
        found[key] = value
    return found


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise invalid(f"the number {text:.20} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise invalid(f"a whole number has {len(text)} digits")
    return int(text)


def _refuse(name: str) -> NoReturn:
    raise invalid(f"{name} is not a number in JSON")


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
