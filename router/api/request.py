"""The fields by which clients say how tokens are picked, OpenAI's and the usual extensions."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field

from backends.base import RequestError
from router.api.parse import RequestBody
from router.sampling.limits import MAX_BIASES, MAX_STOPS, check_numbers
from router.types import Message, Picture, Request, Role, Sampling

Detail: TypeAlias = Literal["auto", "low", "high"]

LOW_PIXELS = 512 * 512
"""What "detail": "low" shrinks images to; "high" and "auto" read them as large as they may be."""

_DATA = re.compile(r"data:image/[\w.+-]{1,40}(?:;[\w=.+-]{1,40})*;base64,", re.IGNORECASE | re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")  # long enough that no path or name is taken for data
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class ImageSource:
    """An image as a client gave it."""

    param: str  # where it stands in the body
    data: str | None  # base64
    url: str | None  # http or https, where ``data`` is None
    detail: Detail = "auto"

    def decoded(self, max_bytes: int) -> bytes:
        """The encoded image. RequestError: it is too large, or not base64."""
        assert self.data is not None
        size = len(self.data) * 3 // 4
        if size > max_bytes:
            raise RequestError(
                f"the image has about {size:,} bytes; at most {max_bytes:,} are read: make it smaller",
                code="image_too_large",
                param=self.param,
            )
        try:
            return b64decode(self.data, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(
                "the image is not valid base64; encode it again", code="invalid_image", param=self.param
            ) from None


def source(address: str, param: str, detail: Detail = "auto") -> ImageSource:
    """What ``address`` means: a data URI, base64 alone, or a URL.

    RequestError ``unsupported_image_url``: anything else; no file is ever opened because of a request.
    """
    if (start := _DATA.match(address)) is not None:
        return ImageSource(param, address[start.end() :], None, detail)
    if _URL.match(address):
        return ImageSource(param, None, address, detail)
    if _BARE.fullmatch(address):
        return ImageSource(param, address, None, detail)
    raise RequestError(
        "the image must be a data URI, such as data:image/png;base64,iVBOR...",
        code="unsupported_image_url",
        param=param,
    )


def max_pixels(sources: tuple[ImageSource, ...], said: int | None) -> int | None:
    """How large images are read: as said, else small if every one of them asks for low detail."""
    if said is None and sources and all(source.detail == "low" for source in sources):
        return LOW_PIXELS
    return said


Form: TypeAlias = Literal["chat", "text"]  # of the answer: a chat completion, or a legacy text completion


@dataclass(frozen=True)
class ParsedMessage:
    """One message, its images not read yet."""

    role: Role
    parts: tuple[str | ImageSource, ...]

    def message(self, read: Callable[[ImageSource], Picture]) -> Message:
        """The message, each image as ``read`` gives it."""
        return Message(self.role, tuple(p if isinstance(p, str) else read(p) for p in self.parts))


@dataclass(frozen=True)
class ParsedRequest:
    """A body, understood."""

    form: Form
    model: str
    turns: tuple[ParsedMessage, ...]
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
        return tuple(part for turn in self.turns for part in turn.parts if isinstance(part, ImageSource))

    def request(self, read: Callable[[ImageSource], Picture], backend: str | None) -> Request:
        """What the router answers, by ``backend`` if one is named."""
        return Request(
            tuple(turn.message(read) for turn in self.turns),
            self.sampling,
            backend,
            self.min_pixels,
            self.max_pixels,
            self.json_schema,
        )


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
    said = Sampling(
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
    check_numbers(said)
    return said


def _biases(said: dict[str, float] | None) -> tuple[tuple[int, float], ...] | None:
    if said is None:
        return None
    if len(said) > MAX_BIASES:
        raise RequestError(f"logit_bias must name at most {MAX_BIASES} tokens", param="logit_bias")
    for key in said:
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and key == str(int(key))):
            raise RequestError("logit_bias must have token ids as keys, such as '42'", param="logit_bias")
    return tuple((int(key), value) for key, value in said.items())


def _all(values: list[T] | None) -> tuple[T, ...] | None:
    return None if values is None else tuple(values)
