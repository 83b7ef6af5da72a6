"""What a body asks for, whatever its dialect, and the fields that OpenAI's bodies share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field

from backends.base import RequestError
from router.api.messages import ImageSource, ParsedMessage
from router.api.parse import RequestBody
from router.sampling import MAX_BIASES, MAX_STOPS, check_numbers
from router.types import Picture, Request, Sampling

LOW_PIXELS = 512 * 512
"""What "detail": "low" shrinks images to; "high" and "auto" read them as large as they may be."""


def max_pixels(sources: tuple[ImageSource, ...], limit: int | None) -> int | None:
    """How large images are read: at most ``limit``, else small if every one of them asks for low detail."""
    if limit is None and sources and all(source.detail == "low" for source in sources):
        return LOW_PIXELS
    return limit


@dataclass(frozen=True)
class ParsedRequest:
    """What a body asks for."""

    model: str
    messages: tuple[ParsedMessage, ...]
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False
    json_schema: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    ignored: tuple[str, ...] = ()  # names of fields that were not read

    @property
    def sources(self) -> tuple[ImageSource, ...]:
        """Where the images come from, in order."""
        return tuple(source for message in self.messages for source in message.sources)

    def request(self, read: Callable[[ImageSource], Picture], backend: str | None) -> Request:
        """What the router answers, by ``backend`` if one is named."""
        return Request(
            tuple(message.message(read) for message in self.messages),
            self.sampling,
            backend,
            self.min_pixels,
            self.max_pixels,
            self.json_schema,
        )


# What would change the answer and is not done here, and the values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "echo": (False,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "grammar": (),
    "json_schema": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
}


T = TypeVar("T")

# Ranges stand in the document only: ``check_numbers`` holds to them, in words


def _between(low: float, high: float) -> dict[str, Any]:
    return {"minimum": low, "maximum": high}


_BIASES: dict[str, Any] = {
    "maxProperties": MAX_BIASES,
    "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},  # token ids
    "additionalProperties": _between(-100, 100) | {"type": "number"},
}


class PixelLimits(RequestBody):
    """How large images are read, in pixels of width times height."""

    min_pixels: Annotated[int | None, Field(json_schema_extra={"minimum": 1})] = None
    max_pixels: Annotated[int | None, Field(json_schema_extra={"minimum": 1})] = None


class StreamOptions(RequestBody):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None


class SamplingBody(RequestBody):
    """A body that asks for an answer."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, Field(json_schema_extra=_between(1, 1))] = None
    max_tokens: Annotated[int | None, Field(json_schema_extra={"minimum": 1})] = None
    temperature: Annotated[float | None, Field(json_schema_extra=_between(0, 2))] = None
    top_p: Annotated[float | None, Field(json_schema_extra={"exclusiveMinimum": 0, "maximum": 1})] = None
    top_k: Annotated[int | None, Field(json_schema_extra={"minimum": 0})] = None
    min_p: Annotated[float | None, Field(json_schema_extra={"minimum": 0, "exclusiveMaximum": 1})] = None
    presence_penalty: Annotated[float | None, Field(json_schema_extra=_between(-2, 2))] = None
    frequency_penalty: Annotated[float | None, Field(json_schema_extra=_between(-2, 2))] = None
    repetition_penalty: Annotated[float | None, Field(json_schema_extra=_between(0.01, 10))] = None
    logit_bias: Annotated[dict[str, float] | None, Field(json_schema_extra=_BIASES)] = None
    seed: Annotated[int | None, Field(json_schema_extra=_between(-(2**63), 2**63 - 1))] = None
    stop: Annotated[str | list[str] | None, Field(json_schema_extra={"maxItems": MAX_STOPS})] = None
    stop_token_ids: list[int] | None = None
    min_tokens: Annotated[int | None, Field(json_schema_extra={"minimum": 0})] = None
    ignore_eos: bool | None = None
    mm_processor_kwargs: PixelLimits | None = None


def sampling(body: SamplingBody, max_tokens: int | None, logprobs: int | None) -> Sampling:
    """What the body says of sampling. RequestError: a number outside its range, or more than one answer."""
    if body.n not in (None, 1):
        raise RequestError("n must be 1: one answer is given to a request", param="n")
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options needs stream to be true", param="stream_options")
    options = Sampling(
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=_biases(body.logit_bias),
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        stop=(body.stop,) if isinstance(body.stop, str) else _all(body.stop),
        stop_token_ids=_all(body.stop_token_ids),
        seed=body.seed,
        logprobs=logprobs,
    )
    check_numbers(options)
    return options


def _biases(biases: dict[str, float] | None) -> tuple[tuple[int, float], ...] | None:
    if biases is None:
        return None
    if len(biases) > MAX_BIASES:
        raise RequestError(f"logit_bias must name at most {MAX_BIASES} tokens", param="logit_bias")
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and key == str(int(key))):
            raise RequestError("logit_bias must have token ids as keys, such as '42'", param="logit_bias")
    return tuple((int(key), value) for key, value in biases.items())


def _all(values: list[T] | None) -> tuple[T, ...] | None:
    return None if values is None else tuple(values)
