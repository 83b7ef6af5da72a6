"""What an answer may consist of, token by token."""

from __future__ import annotations

from typing import Protocol

from backends.base import Logits


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
