"""What is left of an answer when the machine, the moment and the libraries are taken out of it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "#"

# whole numbers and texts that machine, moment or installed libraries choose
UNSTEADY = frozenset({"created", "memory", "where", "time", "seconds", "sent"})
SCORES = frozenset({"logprob", "token_logprobs"})  # natural logarithms; exact where a script plays the model
ALTERNATIVES = frozenset({"top", "top_logprobs"})  # of equal scores any may come first

_ID = re.compile(r"[0-9a-f]{24,}")
_TEXT = (
    (re.compile(r"^hybrid: other processes use .*\n?", re.MULTILINE), ""),  # a measurement's
    (re.compile(r"\b\d+\.\d+ ?(s|ms|tok/s|seconds)\b"), rf"{MASK} \1"),
    (re.compile(r"\b\d[\d.]* (B|kB|MB|GB)\b"), rf"{MASK} \1"),
    (re.compile(r"relative error at most [\d.e-]+"), f"relative error at most {MASK}"),
    (re.compile(r"-[0-9a-f]{10}\b"), f"-{MASK}"),  # what an export was made of
    (re.compile(r"(127\.0\.0\.1|localhost):\d{4,5}\b"), rf"\1:{MASK}"),
)
# of a table, whose columns are as wide as what was masked; speeds stand last in a row
_TABLE = (
    (re.compile(r"\d+\.\d$", re.MULTILINE), MASK),
    (re.compile(r"─+"), "─"),
    (re.compile(r"(?<=\S) {2,}"), "  "),
    (re.compile(r"^ +$", re.MULTILINE), ""),
    (re.compile(r"^ +", re.MULTILINE), " "),
)


def text(told: str, places: Mapping[str, str]) -> list[str]:
    """The lines of a text; ``places``: what each folder of this machine is called in the record."""
    for folder in sorted(places, key=len, reverse=True):
        told = told.replace(folder, places[folder])
    told = "\n".join(line.rstrip() for line in told.splitlines())
    is_table = "─" in told or "MADE FROM" in told
    for pattern, words in (*_TEXT, *(_TABLE if is_table else ())):
        told = pattern.sub(words, told)
    return told.splitlines()


def value(told: Any, key: str = "") -> Any:
    """A JSON value with every number that a clock or a processor chose masked."""
    if key == "id" and isinstance(told, str):
        return _ID.sub(MASK, told)
    if key in UNSTEADY and told is not None:
        return MASK
    if key in SCORES:
        return _rounded(told)
    if key in ALTERNATIVES and isinstance(told, list):
        return [len(told), *[value(one) for one in told if isinstance(one, dict)][:1]]
    if isinstance(told, dict):
        return {name: value(inside, name) for name, inside in told.items()}
    if isinstance(told, list):
        return [value(inside) for inside in told]
    return MASK if isinstance(told, float) else told


def keys(told: Any, path: str = "") -> list[str]:
    """The paths of all keys in a JSON value, those in any element of a list once, in their order."""
    found: dict[str, None] = {}
    if isinstance(told, dict):
        for name, inside in told.items():
            found |= dict.fromkeys([f"{path}.{name}".lstrip("."), *keys(inside, f"{path}.{name}")])
    elif isinstance(told, list):
        for inside in told:
            found |= dict.fromkeys(keys(inside, f"{path}[]"))
    return list(found)


def json_lines(told: Any) -> Iterator[str]:
    """A JSON value masked, a line for each key of an object."""
    masked = value(told)
    if not isinstance(masked, dict):
        yield json.dumps(masked, ensure_ascii=False)
        return
    for name, inside in masked.items():
        yield f"{name}: {json.dumps(inside, ensure_ascii=False)}"


def _rounded(told: Any) -> Any:
    if isinstance(told, list):
        return [_rounded(one) for one in told]
    return round(told, 1) + 0.0 if isinstance(told, float) else told  # no -0.0
