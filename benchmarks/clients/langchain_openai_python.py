"""langchain-openai."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
from checks import ENDLESS, KEY, MODEL, SCHEMA, Client, data_uri, run
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI


def messages(question: str, image: bytes | None = None) -> list[HumanMessage]:
    """A question, with or without an image."""
    parts: list[Any] = [{"type": "text", "text": question}]
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": data_uri(image)}})
    return [HumanMessage(content=parts)]


class LangChain(Client):
    """``ChatOpenAI()``."""

    def ask(self, question: str, image: bytes | None = None, *, model: str = MODEL, key: str = KEY) -> str:
        return str(ChatOpenAI(model=model, api_key=key).invoke(messages(question, image)).content)

    def stream(self, question: str) -> tuple[list[str], int, int]:
        chunks = list(ChatOpenAI(model=MODEL, stream_usage=True).stream(messages(question)))
        (usage,) = (chunk.usage_metadata for chunk in chunks if chunk.usage_metadata)
        pieces = [str(chunk.content) for chunk in chunks if chunk.content]
        return pieces, usage["input_tokens"], usage["output_tokens"]

    def structured(self, question: str, image: bytes) -> Any:
        return ChatOpenAI(model=MODEL).with_structured_output(SCHEMA).invoke(messages(question, image))

    def leave(self, question: str, streaming: Callable[[], None]) -> None:
        stream = ChatOpenAI(model=MODEL, **ENDLESS).stream(messages(question))
        for _, _ in zip(range(5), stream, strict=False):
            pass
        streaming()
        stream.close()

    def status(self, error: Exception) -> int:
        kinds = {400: openai.BadRequestError, 401: openai.AuthenticationError, 404: openai.NotFoundError}
        return next((status for status, kind in kinds.items() if isinstance(error, kind)), 0)


if __name__ == "__main__":
    run(LangChain())
