"""What every body has in common: strict types, refusals by name, and fields that are left unread."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from backends.base import RequestError
from router.api.document import Document

MOST_NAMED = 20  # unread fields that are named, so that the header stays short

B = TypeVar("B", bound="Body")


class Body(BaseModel):
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
        said = document.get(name)
        # compared with their types: true is 1, and False is 0
        if said is not None and not any(type(said) is type(value) and said == value for value in values):
            raise unsupported(name, "this server does not do that; leave it out")


def unsupported(param: str, reason: str) -> RequestError:
    """The error for a field that is known and cannot be followed."""
    return RequestError(f"{param} is not supported: {reason}", code="unsupported_parameter", param=param)


def unread(body: BaseModel, known: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """The names of fields that nothing here reads: ``metadata``, ``messages.name`` ..."""
    for key, value in (body.model_extra or {}).items():
        if key not in known and value is not None:
            yield f"{name}{_printable(key)}"
    for key in type(body).model_fields:
        value = getattr(body, key)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                yield from unread(inner, {}, f"{name}{key}.")


def named(names: Iterator[str]) -> tuple[str, ...]:
    """Each name once, and not too many."""
    each = tuple(dict.fromkeys(names))
    return each if len(each) <= MOST_NAMED else (*each[:MOST_NAMED], "...")


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
    path, here = "", document
    for step in loc:
        if isinstance(step, int) and isinstance(here, list) and step < len(here):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, dict) and (step in here or step == loc[-1]):
            path, here = f"{path}.{step}" if path else str(step), here.get(step)
    return path or "body"
