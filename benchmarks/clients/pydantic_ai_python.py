"""pydantic-ai."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from checks import ENDLESS, KEY, MODEL, Client, run
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

Colour = Literal["red", "green", "blue", "yellow"]


class Seen(BaseModel):
    """Two colours."""

    first: Colour
    second: Colour


def agent(model: str = MODEL, key: str = KEY, **how: Any) -> Agent[None, Any]:
    """An agent on the server."""
    return Agent(OpenAIChatModel(model, provider=OpenAIProvider(api_key=key)), **how)


def prompt(question: str, image: bytes | None = None) -> list[Any]:
    """A question, with or without an image."""
    return [question] if image is None else [question, BinaryContent(image, media_type="image/png")]


class PydanticAI(Client):
    """``Agent.run_sync()`` and ``Agent.run_stream()``."""

    def ask(self, question: str, image: bytes | None = None, *, model: str = MODEL, key: str = KEY) -> str:
        return str(agent(model, key).run_sync(prompt(question, image)).output)

    def stream(self, question: str) -> tuple[list[str], int, int]:
        async def read() -> tuple[list[str], int, int]:
            async with agent().run_stream(question) as answer:
                pieces = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
                return pieces, answer.usage.input_tokens, answer.usage.output_tokens

        return asyncio.run(read())

    def structured(self, question: str, image: bytes) -> Any:
        done = agent(output_type=NativeOutput(Seen)).run_sync(prompt(question, image))
        return done.output.model_dump()

    def leave(self, question: str, streaming: Callable[[], None]) -> None:
        async def begin() -> None:
            async with agent().run_stream(question, model_settings=ENDLESS) as answer:
                async for _ in answer.stream_text(delta=True, debounce_by=None):
                    await asyncio.to_thread(streaming)
                    break

        asyncio.run(begin())

    def status(self, error: Exception) -> int:
        return error.status_code if isinstance(error, ModelHTTPError) else 0


if __name__ == "__main__":
    run(PydanticAI())
