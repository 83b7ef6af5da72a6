"""The body of the older ``POST /v1/completions``: its prompt is read as one message of the user."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from backends.base import RequestError
from router.api.ask import Ask, Turn
from router.api.chat import UNSUPPORTED
from router.api.document import Document
from router.api.parse import named, parse, refuse_unsupported, unread
from router.api.request import SamplingBody, sampling

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {**UNSUPPORTED, "suffix": ("",), "response_format": ()}


class CompletionBody(SamplingBody):
    """What to answer, and how."""

    prompt: Annotated[str | list[str], Field(json_schema_extra={"minItems": 1, "maxItems": 1})]
    logprobs: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": 20})] = None


def completion_ask(document: Document) -> Ask:
    """A completion's body, understood. RequestError names what cannot be."""
    refuse_unsupported(document, _UNSUPPORTED)
    body = parse(CompletionBody, document)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if len(prompts) != 1:
        raise RequestError("prompt must be one text: one answer is given to a request", param="prompt")
    return Ask(
        form="text",
        model=body.model,
        turns=(Turn("user", (prompts[0],)),),
        sampling=sampling(body, body.max_tokens, body.logprobs),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        ignored=named(unread(body, _UNSUPPORTED)),
    )
