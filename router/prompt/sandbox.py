"""Where a model's chat template runs: jinja's sandbox, the helpers such templates expect, and a budget."""

from __future__ import annotations

import json
from collections.abc import Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

BUDGET = "the budget"  # the name of a rendering's Budget among its variables; a template cannot spell it

# What one operation can blow up beyond any budget, and no chat template needs.
_WITHOUT_FILTERS = (
    "batch",
    "center",
    "format",
    "indent",
    "pprint",
    "round",
    "slice",
    "urlize",
    "wordwrap",
    "xmlattr",
)
_WITHOUT_GLOBALS = ("lipsum", "cycler", "joiner")
_WITHOUT_METHODS = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "encode"}
)
_WIDEST_INDENT = 16


class RejectedError(TemplateError):
    """The template called ``raise_exception``."""


@dataclass
class Budget:
    """What one rendering may still spend."""

    steps: int
    chars: int

    def spend(self, steps: int, chars: int = 0) -> None:
        """Take from what is left; TemplateError when that is not enough."""
        self.steps -= steps
        self.chars -= chars
        if self.steps < 0 or self.chars < 0:
            raise TemplateError("it does not come to an end")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it: transformers' whitespace rules, loop controls and helpers."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=_charge_text,
        )
        for name in _WITHOUT_FILTERS:
            del self.filters[name]
        for name in _WITHOUT_GLOBALS:
            del self.globals[name]
        self.filters.update(tojson=_tojson, charge_rounds=_charge_rounds, charge_text=_charge_text)
        self.globals.update(raise_exception=_raise, strftime_now=_strftime_now, dict=_dict)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Jinja's own rule, and no text methods that make long texts out of short ones."""
        wide = isinstance(obj, str) and attr in _WITHOUT_METHODS
        return not wide and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Nothing: jinja would lend a guarded ``str.format``, which still pads without end."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a macro or method, at the budget's cost."""
        context[BUDGET].spend(1)
        return _charge_text(context, super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate, at the budget's cost where texts and lists grow."""
        sizes = [len(side) for side in (left, right) if isinstance(side, Sized)]
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text % value is not supported")
        if operator in ("*", "**") and any(
            isinstance(side, int) and abs(side) > 2**32 for side in (left, right)
        ):
            raise SecurityError("large numbers are not supported")
        if operator == "**" and abs(right) > 32:
            raise SecurityError("large powers are not supported")
        if operator == "*" and sizes:
            times = next((side for side in (left, right) if isinstance(side, int)), 0)
            context[BUDGET].spend(1, sizes[0] * max(times, 0))
        elif operator == "+":
            context[BUDGET].spend(1, sum(sizes))
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """``{% generation %}``: marks an answer for training; here it is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@pass_context
def _charge_rounds(context: Context, items: Any, literal: int) -> Any:
    sized = items if isinstance(items, Sized) else list(items)
    context[BUDGET].spend(len(sized), len(sized) * literal)
    return sized


@pass_context
def _charge_text(context: Context, value: Any) -> Any:
    if isinstance(value, str):
        context[BUDGET].spend(0, len(value))
    return value


def _raise(message: str) -> NoReturn:
    raise RejectedError(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > _WIDEST_INDENT:
        raise SecurityError(f"indents above {_WIDEST_INDENT} are not supported")
    # jinja's own escapes < and > for HTML
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)
