"""What an answer may consist of, token by token: anything, or what a JSON schema allows, by llguidance.

A `Constraint` masks the scores before the shared sampler sees them, so it is the same for every backend, and
temperature, filters and penalties choose among what the schema allows. Properties come in the order in which
the schema names them. Between two marks of the JSON there is one blank at most: indentation costs tokens, and
a small model that may indent was seen to write nothing else.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from backends.base import Logits, RequestError


class Constraint(Protocol):
    """Follows one answer: says before each token which may come, and is told which came."""

    @property
    def complete(self) -> bool:
        """Whether the answer is whole and nothing may follow."""
        ...

    def masked(self, logits: Logits) -> Logits:
        """``logits`` with -inf for every token that may not come now; the argument is left as it is."""
        ...

    def accept(self, token: int) -> None:
        """Go on past ``token``, which was picked from the masked scores."""
        ...


class Unconstrained:
    """Any token may come at any time."""

    complete = False

    def masked(self, logits: Logits) -> Logits:
        """The scores as they are."""
        return logits

    def accept(self, token: int) -> None:
        """Nothing to remember."""


FREE = Unconstrained()

MAX_SCHEMA_CHARACTERS = 65_536
MAX_SCHEMA_DEPTH = 100  # objects and lists inside each other; the library's own parser stops at 128
ANY_OBJECT = '{"type": "object"}'

# every option is said, so that a schema's own "x-guidance" changes none
_OPTIONS = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": True,
    "whitespace_pattern": " ?",
    "coerce_one_of": False,
    "lenient": False,
}
_MAX_REASON = 300


class Schemas:
    """Makes the constraints of one model; read once, and shared by threads."""

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos: frozenset[int]) -> None:
        """``vocab``: how many scores the model gives; ``eos``: the ids that end an answer."""
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._eos = sorted(eos)

    def constraint(self, schema: str) -> JsonConstraint:
        """A constraint for one answer. ``schema``: a JSON schema, as JSON text.

        RequestError ``invalid_json_schema``: it is not one, is too large, or uses what cannot be held to.
        """
        from llguidance import LLMatcher, LLParserLimits

        _check(schema)
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_OPTIONS)  # type: ignore[arg-type]
        except ValueError as error:
            raise _invalid(str(error)) from None
        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        constraint = JsonConstraint(matcher, self._vocab)
        constraint.masked(np.zeros(self._vocab, np.float32))  # what no answer can satisfy shows only here
        return constraint

    @cached_property
    def _vocabulary(self) -> Any:
        """The tokenizer as the library reads it; a second of work for 150,000 tokens."""
        from llguidance import LLTokenizer

        return LLTokenizer(self._tokenizer.to_str(), n_vocab=self._vocab, eos_token=self._eos)


class JsonConstraint:
    """Keeps one answer to its schema."""

    def __init__(self, matcher: Any, vocab: int) -> None:
        self._matcher = matcher
        self._bits: NDArray[np.int32] = np.zeros((1, (vocab + 31) // 32), np.int32)  # a bit for each token

    @property
    def complete(self) -> bool:
        """Whether the JSON is whole and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def masked(self, logits: Logits) -> Logits:
        """See ``Constraint``. RequestError ``invalid_json_schema``: it needs more work than is allowed."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._bits)
        self._check()
        allowed = np.unpackbits(self._bits.view(np.uint8)[0], count=logits.size, bitorder="little")
        # added, so that a NaN stays one wherever it stands, and the sampler sees it
        scores: Logits = logits + np.where(allowed.view(np.bool_), np.float32(0), np.float32(-np.inf))
        return scores

    def accept(self, token: int) -> None:
        """See ``Constraint``."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _invalid(self._matcher.get_error())


def _check(schema: str) -> None:
    if len(schema) > MAX_SCHEMA_CHARACTERS:
        raise _invalid(f"it has {len(schema)} characters; at most {MAX_SCHEMA_CHARACTERS} are read")
    try:
        value = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise _invalid("it must be a JSON object")
    if _depth(value) > MAX_SCHEMA_DEPTH:
        raise _invalid(f"it is nested deeper than {MAX_SCHEMA_DEPTH}")


def _depth(value: Any) -> int:
    """How many objects and lists stand inside each other at most."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _invalid(reason: str) -> RequestError:
    line = " ".join(reason.split())[:_MAX_REASON]
    return RequestError(
        f"the JSON schema cannot be used: {line}", code="invalid_json_schema", param="json_schema"
    )
