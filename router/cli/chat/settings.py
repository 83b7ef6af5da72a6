"""The settings of a chat: everything of a request but its messages, changed by name and checked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from backends.base import RequestError
from backends.qwen3vl import Config, ImageLimits, grid_of, image_tokens
from router.prompt.checkpoint import read_generation_config
from router.resolve import layered
from router.sampling import BUILT_IN, NO_RULES, check, from_generation_config
from router.types import Picture, Request, Sampling

SAMPLING = tuple(field.name for field in fields(Sampling))
PIXELS = ("min_pixels", "max_pixels")
NAMES = (*SAMPLING, *PIXELS)

_FILTERS = ("top_k", "top_p", "min_p")  # idle where the likeliest token is taken anyway


@dataclass(frozen=True)
class Defaults:
    """What a model's own files say: how it samples, the sizes at which it reads images, its vocabulary."""

    sampling: Sampling
    limits: ImageLimits
    vocab: int

    @classmethod
    def read(cls, folder: Path) -> Defaults:
        """Read a model folder's small files; BackendError ``model_invalid`` names what is wrong."""
        sampling = from_generation_config(read_generation_config(folder)).over(BUILT_IN)
        return cls(sampling, ImageLimits.read(folder), Config.read(folder).text.vocab)


def changed(settings: Request, assignment: str, defaults: Defaults, *, scores: bool) -> Request:
    """The settings after ``NAME=VALUE``; ``NAME=`` goes back to the model's own.

    ``scores``: whether log probabilities would be shown. RequestError: no such name, or not such a value.
    """
    name, equals, text = (part.strip() for part in assignment.partition("="))
    name = name.replace("-", "_")
    if not equals:
        raise RequestError("/set wants NAME=VALUE, such as temperature=0.7; NAME= unsets")
    if name not in NAMES:
        raise RequestError(f"no setting is named '{name:.40}'; choose one of {', '.join(NAMES)}")
    value = _READERS.get(name, _number)(text) if text else None
    if name == "logprobs" and value is not None and not scores:
        raise RequestError("logprobs are part of the JSON output; start the chat with --json")
    settings = _with(settings, name, value)
    check(settings.sampling, defaults.vocab)
    layered(settings.sampling, defaults.sampling, NO_RULES, 0)  # what contradicts the model's own is refused
    _limits(settings, defaults)
    if name in (*_FILTERS, "temperature"):
        _check_filters(settings.sampling, defaults.sampling)
    return settings


def _limits(settings: Request, defaults: Defaults) -> ImageLimits:
    """Between which sizes images are brought. RequestError: the least is above the most."""
    min_pixels, max_pixels = settings.min_pixels, settings.max_pixels
    return ImageLimits(
        defaults.limits.min_pixels if min_pixels is None else min_pixels,
        defaults.limits.max_pixels if max_pixels is None else max_pixels,
    )


def token_cost(image: Picture, settings: Request, defaults: Defaults) -> int:
    """How many tokens an image takes in the prompt."""
    return image_tokens(grid_of(*image.size, _limits(settings, defaults)))


def setting_lines(settings: Request, defaults: Defaults) -> Iterator[str]:
    """A line for each setting: its value as ``changed`` reads it, and whether it was set here."""
    limits = _limits(settings, defaults)
    width = max(map(len, NAMES))
    for name in NAMES:
        value = getattr(settings.sampling if name in SAMPLING else settings, name)
        default = getattr(limits if name in PIXELS else defaults.sampling, name)
        set_here = "" if value is None else "  (set here)"
        yield f"  {name:<{width}}  {_format(default if value is None else value)}{set_here}"


def _with(settings: Request, name: str, value: Any) -> Request:
    if name in PIXELS:
        if value is not None and (not isinstance(value, int) or value < 1):
            raise RequestError(f"{name} must be a whole number of at least 1, got {value!r:.80}", param=name)
        return replace(settings, **{name: value})  # type: ignore[arg-type]
    return replace(settings, sampling=replace(settings.sampling, **{name: value}))


def _check_filters(sampling: Sampling, defaults: Sampling) -> None:
    idle = [name for name in _FILTERS if getattr(sampling, name) is not None]
    if idle and sampling.over(defaults).temperature == 0:
        raise RequestError(
            f"{idle[0]} does nothing at temperature 0; set a temperature first, or unset it: /set {idle[0]}="
        )


def _number(text: str) -> object:
    """A number where it is one; anything else is for the check to refuse, in its words."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _boolean(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _stop_texts(text: str) -> object:
    """One text as it is, or in JSON: "\\n" or ["a", "b"]."""
    if text[0] not in '["':
        return (text,)
    try:
        texts = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError('stop wants a text, or JSON such as "\\n" or ["a", "b"]', param="stop") from None
    return tuple(texts) if isinstance(texts, list) else (texts,)


def _ids(text: str) -> object:
    return tuple(_number(part.strip()) for part in text.split(","))


def _biases(text: str) -> object:
    pairs = [part.partition("=") for part in text.split(",")]
    return tuple((_number(token.strip()), _number(bias.strip())) for token, _, bias in pairs)


_READERS: Mapping[str, Callable[[str], object]] = {
    "ignore_eos": _boolean,
    "stop": _stop_texts,
    "stop_token_ids": _ids,
    "logit_bias": _biases,
}


def _format(value: Any) -> str:
    """A value in the form in which it is set; a dash where there is none."""
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, tuple):
        return str(value)
    if isinstance(value[0], str):
        return json.dumps(value, ensure_ascii=False)
    return ",".join("=".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)
