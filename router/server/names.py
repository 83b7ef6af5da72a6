"""The names that a client may give as its model, and what they say about the backend."""

from __future__ import annotations

from collections.abc import Sequence

from backends.base import RequestError

ALIAS = "auto"


class Names:
    """One model under its own name and ``auto``, each of them also as ``NAME@BACKEND``."""

    def __init__(self, served: str, backends: Sequence[str]) -> None:
        self.served = served
        self.backends = tuple(backends)

    def backend(self, model: str, header: str | None = None) -> str | None:
        """The backend that a request names by its model or by ``x-hybrid-backend``; None: the router picks.

        RequestError ``model_not_found``: no such model is served. ``backend_not_found``: no such backend.
        """
        by_model = self._split(model)
        by_header = None if header in (None, "", ALIAS) else header
        if by_header is not None and by_header not in self.backends:
            raise RequestError(
                f"x-hybrid-backend must be {ALIAS} or one of {', '.join(self.backends)}",
                code="backend_not_found",
                param="x-hybrid-backend",
            )
        if by_model and by_header and by_model != by_header:
            raise RequestError(
                "the model and x-hybrid-backend name two backends; name one", param="x-hybrid-backend"
            )
        return by_model or by_header

    def _split(self, model: str) -> str | None:
        if model in (self.served, ALIAS):
            return None
        name, _, backend = model.rpartition("@")
        if name in (self.served, ALIAS) and backend in self.backends:
            return backend
        raise RequestError(
            f"no model is served under that name; this server has '{self.served}'",
            code="model_not_found",
            param="model",
        )
