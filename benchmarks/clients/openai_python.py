"""The official client of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import openai
from checks import ENDLESS, KEY, MODEL, Client, data_uri, run
from pydantic import BaseModel

Colour = Literal["red", "green", "blue", "yellow"]


class Seen(BaseModel):
    """Two colours."""

    first: Colour
    second: Colour


def messages(question: str, image: bytes | None = None) -> list[Any]:
    """A question, with or without an image."""
    parts: list[Any] = [{"type": "text", "text": question}]
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": data_uri(image)}})
    return [{"role": "user", "content": parts}]


class OpenAIPython(Client):
    """``openai.OpenAI()``."""

    def ask(self, question: str, image: bytes | None = None, *, model: str = MODEL, key: str = KEY) -> str:
        client = openai.OpenAI(api_key=key)
        done = client.chat.completions.create(model=model, messages=messages(question, image))
        return done.choices[0].message.content or ""

    def stream(self, question: str) -> tuple[list[str], int, int]:
        chunks = list(
            openai.OpenAI().chat.completions.create(
                model=MODEL,
                messages=messages(question),
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        usage = chunks[-1].usage
        assert usage is not None
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        return [piece for piece in pieces if piece], usage.prompt_tokens, usage.completion_tokens

    def structured(self, question: str, image: bytes) -> Any:
        done = openai.OpenAI().chat.completions.parse(
            model=MODEL, messages=messages(question, image), response_format=Seen
        )
        parsed = done.choices[0].message.parsed
        return parsed and parsed.model_dump()

    def leave(self, question: str, streaming: Callable[[], None]) -> None:
        stream = openai.OpenAI().chat.completions.create(
            model=MODEL, messages=messages(question), stream=True, **ENDLESS
        )
        with stream:
            for _, _ in zip(range(5), stream, strict=False):
                pass
            streaming()

    def status(self, error: Exception) -> int:
        kinds = {400: openai.BadRequestError, 401: openai.AuthenticationError, 404: openai.NotFoundError}
        return next((status for status, kind in kinds.items() if type(error) is kind), 0)


if __name__ == "__main__":
    run(OpenAIPython())
