"""A model's chat template: conversation -> plain text, with the places of the template's own control tokens.

Every control token that the template's source spells is replaced, before the template is compiled, by a
mark: one lone surrogate. Valid text holds no surrogate, and other text is refused before it comes here, so a
mark in the rendered text is the template's, and whatever a message spells stays text. The messages
themselves are handed over untouched: a template that strips, splits or compares them sees what was written.

The source comes with the model and is not trusted: it runs in jinja's sandbox and on a budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.visitor import NodeTransformer

from backends.base import BackendError, RequestError
from router.prompt.sandbox import BUDGET, Budget, RejectedError, Sandbox

LARGEST_SOURCE = 1 << 18  # characters; Qwen's longest template has about ten thousand
_STEPS, _STEPS_PER_PART = 50_000, 200  # loop rounds and calls
_CHARS, _COPIES = 4_000_000, 32  # joined text: this much, and this many times the length of the messages

_MARK = re.compile("([\ud800-\udfff])")
_FIRST_MARK, _MARKS = 0xD800, 2048

# What a template can raise by being wrong; it is the model's program, not ours.
_FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class Rendered:
    """``runs[0] controls[0] runs[1] ... controls[-1] runs[-1]``: plain text, and control tokens between."""

    runs: tuple[str, ...]
    controls: tuple[str, ...]


class ChatTemplate:
    """A compiled chat template; rendering keeps no state, so threads may share it."""

    def __init__(
        self, source: str, controls: Iterable[str], variables: Mapping[str, str], origin: str
    ) -> None:
        """``controls``: texts of the tokenizer's special tokens; ``origin``: the file to name in errors.

        BackendError ``model_invalid``: the source is not a template, or not one that can be marked.
        """
        self.origin = origin
        self._marks = _Marks(controls)
        environment = Sandbox()
        try:
            if len(source) > LARGEST_SOURCE:
                raise TemplateError(f"it is longer than {LARGEST_SOURCE} characters")
            tree = _Rewriter(self._marks).visit(environment.parse(source))
            code = environment.compile(tree)
            self._template = Template.from_code(environment, code, environment.make_globals(None))
            self._variables = {name: self._marks.put(value) for name, value in variables.items()}
        except _FAILURES as error:
            raise self._broken(error) from None
        self._probe()

    def render(self, messages: Sequence[Mapping[str, Any]], parts: int, chars: int) -> Rendered:
        """Render the conversation up to where the answer starts.

        ``messages`` are in the form templates read and without a surrogate; ``parts`` and ``chars``, how many
        there are in all, set the budget. RequestError: the template rejects the conversation. BackendError
        ``model_invalid``: the template fails, or does not come to an end.
        """
        budget = Budget(_STEPS + _STEPS_PER_PART * parts, _CHARS + _COPIES * chars)
        names = {**self._variables, "messages": messages, "add_generation_prompt": True, "tools": None}
        pieces = []
        try:
            for piece in self._template.generate({**names, "documents": None, BUDGET: budget}):
                budget.spend(1, len(piece))
                pieces.append(piece)
        except RejectedError as error:
            reason = self._marks.spell(str(error))[:500]
            raise RequestError(
                f"the model's chat template rejects the conversation: {reason}", param="messages"
            ) from None
        except _FAILURES as error:
            raise self._broken(error) from None
        split = _MARK.split("".join(pieces))
        return Rendered(tuple(split[::2]), tuple(self._marks.spell(mark) for mark in split[1::2]))

    def _probe(self) -> None:
        """Refuse a template that joins control tokens from pieces: unmarked, they would be read as text."""
        turns = [{"role": role, "content": "text"} for role in ("system", "user", "assistant", "user")]
        for messages in (turns[1:2], turns[:2], turns[1:], turns):
            try:
                rendered = self.render(messages, len(messages), 4 * len(messages))
            except RequestError:
                continue  # a conversation that this model does not have
            if self._marks.spelled_in("\n".join(rendered.runs)):
                raise self._broken(
                    TemplateError("it joins control tokens from pieces, which is not supported")
                )

    def _broken(self, error: BaseException) -> BackendError:
        reason = self._marks.spell(str(error))[:500] or type(error).__name__
        return BackendError(f"{self.origin}: the chat template fails: {reason}", code="model_invalid")


class _Marks:
    """Control tokens and the surrogates that stand for them."""

    def __init__(self, controls: Iterable[str]) -> None:
        # the longest first, as the tokenizer matches them
        self._any = re.compile("|".join(map(re.escape, sorted(controls, key=len, reverse=True))) or r"(?!)")
        self._mark: dict[str, str] = {}
        self._text: dict[str, str] = {}

    def put(self, text: str) -> str:
        """``text`` with a mark for every control token in it."""
        if _MARK.search(text):
            raise TemplateError("it holds half of a surrogate pair")
        return self._any.sub(lambda match: self._of(match[0]), text)

    def spell(self, text: str) -> str:
        """``text`` with every mark spelled out."""
        return _MARK.sub(lambda match: self._text.get(match[0], "\ufffd"), text)

    def spelled_in(self, text: str) -> bool:
        """Whether ``text`` spells a control token."""
        return self._any.search(text) is not None

    def _of(self, control: str) -> str:
        if control not in self._mark:
            if len(self._mark) == _MARKS:
                raise TemplateError(f"it uses more than {_MARKS} control tokens")
            mark = chr(_FIRST_MARK + len(self._mark))
            self._mark[control], self._text[mark] = mark, control
        return self._mark[control]


class _Rewriter(NodeTransformer):
    """Puts marks for control tokens, and charges to the budget where a template can spend without end."""

    def __init__(self, marks: _Marks) -> None:
        self._marks = marks

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        node.data = self._marks.put(node.data)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if isinstance(node.value, str):
            node.value = self._marks.put(node.value)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.recursive:
            raise TemplateError("it uses a recursive loop")
        self.generic_visit(node)
        literal = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.iter = _through(node.iter, "charge_rounds", nodes.Const(literal))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(node, "charge_text")


def _through(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
