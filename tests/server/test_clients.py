"""The official client, with nothing changed but the address."""

import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the client's own, at import
    import openai
    from openai import OpenAI

from tests.server.conftest import ANSWER, Served, until
from tests.server.test_wire import IMAGE

QUESTION = [{"role": "user", "content": "Which colours?"}]


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    url = f"http://127.0.0.1:{served.port}/v1"
    with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30) as found:
        yield found


def test_text_images_streams_and_models(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="scenes", messages=QUESTION)
    assert whole.choices[0].message.content == ANSWER
    shown = [{"type": "text", "text": "Which?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    imaged = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": shown}])
    assert imaged.usage.prompt_tokens_details.to_dict() == {"cached_tokens": 0, "image_tokens": 12}
    stream = client.chat.completions.create(
        model="scenes", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [model.id for model in client.models.list()] == ["scenes"]
    assert client.models.retrieve("scenes").id == "scenes"
    older = client.completions.create(model="scenes", prompt="Which?", max_tokens=3)
    assert older.choices[0].finish_reason == "length"
    raw = client.chat.completions.with_raw_response.create(model="scenes", messages=QUESTION)
    assert raw.headers["x-hybrid-backend"] == "scripted"


def test_structured_output_is_parsed(client: OpenAI, served: Served) -> None:
    from pydantic import BaseModel

    class Colours(BaseModel):
        colours: list[str]
        count: int

    served.plays('{"colours": ["red", "blue"], "count": 2}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = client.chat.completions.parse(model="scenes", messages=QUESTION, response_format=Colours)
    assert parsed.choices[0].message.parsed == Colours(colours=["red", "blue"], count=2)


def test_errors_are_the_clients_own(client: OpenAI, served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt", messages=QUESTION)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="scenes", messages=QUESTION, temperature=3)
    assert wrong.value.param == "temperature"
    served.plays(fault="raise", fault_at=3)
    stream = client.chat.completions.create(model="scenes", messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="the backend failed"):
        list(stream)


def test_a_failure_that_would_come_again_is_not_repeated(served: Served) -> None:
    asked: list[int] = []
    opening = served.backend.open
    served.backend.open = lambda capacity: asked.append(capacity) or opening(capacity)  # type: ignore[method-assign]
    served.plays(fault="raise")
    url = f"http://127.0.0.1:{served.port}/v1"
    with OpenAI(base_url=url, api_key="none", max_retries=2) as client, suppress(openai.InternalServerError):
        client.chat.completions.create(model="scenes", messages=QUESTION)
    del served.backend.open
    assert len(asked) == 1


def test_closing_a_stream_ends_the_computing(client: OpenAI, served: Served) -> None:
    served.plays(delay=0.01)
    more = {"ignore_eos": True}
    stream = client.chat.completions.create(
        model="scenes", messages=QUESTION, stream=True, max_tokens=3000, extra_body=more
    )
    next(iter(stream))
    stream.close()
    until(served.idle)


def test_many_streams_at_once_are_answered_or_refused(served: Served) -> None:
    outcomes: list[str] = []

    def once() -> None:
        with OpenAI(
            base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0, timeout=60
        ) as client:
            try:
                stream = client.chat.completions.create(model="scenes", messages=QUESTION, stream=True)
                text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                outcomes.append(text)
            except openai.RateLimitError as error:
                outcomes.append(json.dumps(error.code))

    threads = [threading.Thread(target=once) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 24
    assert set(outcomes) <= {ANSWER, '"queue_full"'}
    assert outcomes.count(ANSWER) >= 9
