"""litellm, which speaks to servers like OpenAI's under the prefix ``openai/``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import litellm
from checks import ENDLESS, KEY, MODEL, SCHEMA, URL, Client, data_uri, run

litellm.suppress_debug_info = True


def completion(question: str, image: bytes | None = None, *, model: str = MODEL, **how: Any) -> Any:
    """One call."""
    parts: list[Any] = [{"type": "text", "text": question}]
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": data_uri(image)}})
    messages = [{"role": "user", "content": parts}]
    return litellm.completion(model=f"openai/{model}", messages=messages, api_base=URL, **how)


class LiteLLM(Client):
    """``litellm.completion()``."""

    def ask(self, question: str, image: bytes | None = None, *, model: str = MODEL, key: str = KEY) -> str:
        done = completion(question, image, model=model, api_key=key)
        return done.choices[0].message.content or ""

    def stream(self, question: str) -> tuple[list[str], int, int]:
        chunks = list(completion(question, stream=True, stream_options={"include_usage": True}))
        usage = chunks[-1].usage
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        return [piece for piece in pieces if piece], usage.prompt_tokens, usage.completion_tokens

    def structured(self, question: str, image: bytes) -> Any:
        form = {"type": "json_schema", "json_schema": {"name": "seen", "schema": SCHEMA, "strict": True}}
        done = completion(question, image, response_format=form)
        return json.loads(done.choices[0].message.content)

    def leave(self, question: str, streaming: Callable[[], None]) -> None:
        stream = completion(question, stream=True, **ENDLESS)
        for _, _ in zip(range(5), stream, strict=False):
            pass
        streaming()
        stream.completion_stream.close()

    def status(self, error: Exception) -> int:
        kinds = {400: litellm.BadRequestError, 401: litellm.AuthenticationError, 404: litellm.NotFoundError}
        return next((status for status, kind in kinds.items() if type(error) is kind), 0)


if __name__ == "__main__":
    run(LiteLLM())
