"""instructor, whose answers are objects: a text is an object of one field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import instructor
import openai
from checks import ENDLESS, KEY, MODEL, Client, data_uri, run
from pydantic import BaseModel, ConfigDict

Colour = Literal["red", "green", "blue", "yellow"]


class Seen(BaseModel):
    """Two colours."""

    model_config = ConfigDict(extra="forbid")
    first: Colour
    second: Colour


def client(key: str = KEY) -> Any:
    """The client, told to let the server hold answers to a schema."""
    return instructor.from_openai(openai.OpenAI(api_key=key), mode=instructor.Mode.JSON_SCHEMA)


def messages(question: str, image: bytes | None = None) -> list[Any]:
    """A question, with or without an image."""
    parts: list[Any] = [{"type": "text", "text": question}]
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": data_uri(image)}})
    return [{"role": "user", "content": parts}]


class Instructor(Client):
    """``instructor.from_openai()``."""

    def ask(self, question: str, image: bytes | None = None, *, model: str = MODEL, key: str = KEY) -> str:
        asked = messages(question, image)
        done = client(key).create(model=model, messages=asked, response_model=None)
        return done.choices[0].message.content or ""

    def stream(self, question: str) -> tuple[list[str], int, int]:
        how = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client().create(model=MODEL, messages=messages(question), response_model=None, **how))
        usage = chunks[-1].usage
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        return [piece for piece in pieces if piece], usage.prompt_tokens, usage.completion_tokens

    def structured(self, question: str, image: bytes) -> Any:
        asked = messages(question, image)
        return client().create(model=MODEL, messages=asked, response_model=Seen).model_dump()

    def leave(self, question: str, streaming: Callable[[], None]) -> None:
        asked = messages(question)
        stream = client().create(model=MODEL, messages=asked, response_model=None, stream=True, **ENDLESS)
        for _, _ in zip(range(5), stream, strict=False):
            pass
        streaming()
        stream.close()

    def status(self, error: Exception) -> int:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, openai.APIStatusError):
            cause = cause.__cause__
        kinds = {400: openai.BadRequestError, 401: openai.AuthenticationError, 404: openai.NotFoundError}
        return next((status for status, kind in kinds.items() if isinstance(cause, kind)), 0)


if __name__ == "__main__":
    run(Instructor())
