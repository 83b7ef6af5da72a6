"""How far a backend's weights are from the checkpoint's: a speed counts only with the fidelity it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.export.recipe import SEARCH, MatrixError


@dataclass(frozen=True)
class Fidelity:
    """Relative weight errors ||W - Wq|| / ||W||: the mean over the matrices of each part."""

    body: float  # the language model's layers
    head: float  # the matrix that gives the scores
    vision: float
    outputs: float | None = (
        None  # of the layers, on other prompts than it was calibrated on: see `MatrixError`
    )
    search: float | None = None  # of the 4-bit head that scores all tokens but the best

    @classmethod
    def of(cls, matrices: Sequence[MatrixError]) -> Fidelity:
        """What an export's manifest says; a part that was not rounded has no error."""
        vision = [matrix.error for matrix in matrices if "visual." in matrix.name]
        whole = [matrix for matrix in matrices if not matrix.name.startswith(SEARCH)]
        tables = [matrix.error for matrix in whole if "embed_tokens" in matrix.name]
        heads = [matrix.error for matrix in whole if "lm_head" in matrix.name]
        search = [matrix.error for matrix in matrices if matrix.name.startswith(SEARCH)]
        body = [
            matrix.error
            for matrix in matrices
            if "model.layers." in matrix.name and not matrix.name.startswith("prefill.")
        ]
        outputs = [matrix.output_error for matrix in matrices if matrix.output_error is not None]
        # a tied table is the head
        return cls(
            body=_mean(body),
            head=_mean(heads or tables),
            vision=_mean(vision),
            outputs=_mean(outputs) if outputs else None,
            search=_mean(search) if search else None,
        )

    def text(self, *, vision: bool) -> str:
        """As tables have it: body / head, and the picture tower where that took part."""
        errors = (self.body, self.head, self.vision)[: 3 if vision else 2]
        body, head, *tower = (f"{error:.3f}" if error else "0" for error in errors)
        if self.outputs is not None:
            body += f" (outputs {self.outputs:.3f})"
        if self.search is not None:
            head += f" (past the best {self.search:.3f})"
        return " / ".join([body, head, *tower])


EXACT = Fidelity(0.0, 0.0, 0.0)
"""The checkpoint's own weights, in bfloat16 or in more."""


def _mean(errors: Sequence[float]) -> float:
    return sum(errors) / len(errors) if errors else 0.0
