"""The library: what a router answers and decides in Python, and how it refuses."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import router
from router import (
    BackendError,
    InputLimits,
    Message,
    Request,
    RequestError,
    Route,
    Router,
    Sampling,
    open_image,
)
from tests.record import masks
from tests.record.workspace import Workspace, environment, script

TEXT = Request((Message.of("user", "What can you do?"),))


def record(space: Workspace) -> Iterator[tuple[str, list[str]]]:
    """Each case's name and lines."""
    yield "library: its names", sorted(router.__all__)
    with closing(Router()) as answering, environment(HYBRID_SCRIPT=script()):
        for name, request in _asked().items():
            yield f"library: {name}, whole", _told(answering.complete(request))
        for name, request in _asked().items():
            chunks = [asdict(chunk) for chunk in answering.stream(request)]
            yield (
                f"library: {name}, streamed",
                [json.dumps(masks.value(json.loads(json.dumps(chunk)))) for chunk in chunks],
            )
            yield f"library: {name}, decided", [repr(answering.decide(request))]
        yield "library: the route of a text", _told(answering.route(TEXT, others=1))
        for name, wrong in _wrong(answering).items():
            yield f"library: {name}", masks.text(_refusal(wrong), space.names)


def _asked() -> dict[str, Request]:
    image = open_image("quadrants.png")
    look = Message.of("user", image, "Which colours do you see?")
    turns = (look, Message.of("assistant", "Red."), Message.of("user", "And what else?"))
    return {
        "a text": TEXT,
        "an image": Request((look,)),
        "a conversation": Request(turns, Sampling(max_tokens=3)),
        "JSON": Request((look,), json_schema='{"enum": ["red", "green"]}'),
        "a script": Request(TEXT.messages, Sampling(logprobs=0, stop=(" blue",)), backend="scripted"),
    }


def _told(found: Any) -> list[str]:
    fields = found.fields() if isinstance(found, Route) else asdict(found)
    return list(masks.json_lines(json.loads(json.dumps(fields))))


def _refusal(wrong: Callable[[], object]) -> str:
    try:
        return f"no error: {wrong()!r}"
    except (RequestError, BackendError) as error:
        param = getattr(error, "param", None)
        return f"{type(error).__name__} code={error.code} param={param}\n{error!r}\n{error}"
    except (TypeError, ValueError) as error:
        return type(error).__name__  # in words of Python's, which newer ones choose otherwise


def _wrong(answering: Router) -> dict[str, Callable[[], object]]:
    """What is refused, by name."""

    def sampled(**fields: Any) -> Callable[[], object]:
        return lambda: answering.complete(Request(TEXT.messages, Sampling(**fields)))

    def asked(**fields: Any) -> Callable[[], object]:
        return lambda: answering.decide(Request(**{"messages": TEXT.messages, **fields}))

    image = open_image("quadrants.png")
    shown = (Message.of("user", image, "?"),)
    return {
        "an unknown role": lambda: Message.of("root", "?"),  # type: ignore[arg-type]
        "no message": asked(messages=()),
        "no text": asked(messages=(Message.of("user", ""),)),
        "a system prompt that comes late": asked(messages=(*TEXT.messages, Message.of("system", "Obey."))),
        "half a surrogate pair": asked(messages=(Message.of("user", "caf\udce9"),)),
        "nine images": asked(messages=shown * 9),
        "a temperature out of range": sampled(temperature=3),
        "a temperature that is a text": sampled(temperature="1"),
        "a seed that is no whole number": sampled(seed=0.5),
        "more tokens than the context has": sampled(max_tokens=100_000),
        "fewer tokens than one": sampled(max_tokens=0),
        "a bias of no token": sampled(logit_bias=((5000, 1.0),)),
        "a stop that is empty": sampled(stop=("",)),
        "a misspelt option": sampled(temprature=1),
        "an unknown backend": asked(backend="gpu"),
        "an image for a backend of texts": asked(messages=shown, backend="genai"),
        "a schema that is none": lambda: answering.complete(Request(TEXT.messages, json_schema="{")),
        "pixels that cross": asked(messages=shown, min_pixels=90_000, max_pixels=9_000),
        "a prompt that is too long": asked(messages=(Message.of("user", "word " * 5000),)),
        "a damaged image": lambda: open_image("damaged.png"),
        "an image above the limit": lambda: open_image("quadrants.png", InputLimits(max_pixels=100)),
        "a missing image": lambda: open_image("missing.png"),
        "a missing model": lambda: Router("/no/such/folder"),
        "an unknown policy": lambda: Router(policy="wild"),
    }
