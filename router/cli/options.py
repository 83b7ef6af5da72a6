"""Options that several commands share, and the values they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from backends.base import Runtime
    from router.images import InputLimits
    from router.models import Listener, Model
    from router.router import Router
    from router.types import Sampling

F = TypeVar("F", bound=Callable[..., Any])

NOTICE = (
    "hybrid: answering with 'scenes', the small embedded model: it knows colours and shapes in simple "
    "images, nothing else. For a real one: -m Qwen/Qwen3-VL-2B-Instruct (fetched on first use), or set "
    "HYBRID_MODEL"
)


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option that its longest flag's HYBRID_ variable sets too, if it takes one value."""
    if not settings.get("multiple"):
        longest = max((name for name in names if name.startswith("--")), key=len)
        settings.setdefault("envvar", "HYBRID_" + longest.lstrip("-").replace("-", "_").upper())
    return click.option(*names, **settings)


def conversation_options(command: F) -> F:
    """What is told and shown, and how large images may be."""
    for decorate in reversed(
        [
            click.option("-i", "--image", "images", multiple=True, metavar="PATH|-",
                         help="An image; may be repeated."),
            option("-s", "--system", metavar="TEXT", help="What the model is told before the conversation."),
            option("--min-pixels", type=click.IntRange(min=1), metavar="N",
                   help="Enlarge images below N pixels."),
            option("--max-pixels", type=click.IntRange(min=1), metavar="N",
                   help="Shrink images above N pixels."),
            option("--max-image-pixels", type=click.IntRange(min=1), metavar="N",
                   help="Refuse to decode images above N pixels; 40 million by default."),
        ]
    ):  # fmt: skip
        command = decorate(command)
    return command


def where_options() -> list[Callable[[F], F]]:
    """Where and in which numbers to compute."""
    return [
        option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
               help="Where to compute."),
        option("--dtype", type=click.Choice(["auto", "bf16", "fp32"]), default="auto",
               help="Number format of the torch backend."),
        option("--vision", type=click.Choice(["onnx", "torch"]), default="onnx",
               help="What encodes images for the onnx backend."),
    ]  # fmt: skip


def model_options(command: F) -> F:
    """Which model, on what."""
    for decorate in reversed(
        [
            option("-m", "--model", metavar="scenes|DIR|ID",
                   help="The embedded model, a checkpoint or export folder, or a hub id."),
            option("--backend", default="auto", show_default=True, metavar="auto|NAME",
                   help="Which backend answers: genai, onnx, torch, or auto to pick one by the request."),
            option("--policy", default="auto", show_default=True, metavar="NAME",
                   help="How auto picks: auto, fastest, prefer:a,b,c, or a backend."),
            option("--no-export", is_flag=True, help="Do not export a model that has no export yet."),
            option("--memory", type=click.FloatRange(min=0, min_open=True), metavar="GB",
                   help="For loaded backends, all together; most of the machine's by default."),
            option("--offline", is_flag=True, help="Do not ask the hub."),
            *where_options(),
            option("--threads", type=click.IntRange(1, 1024), metavar="N",
                   help="Threads to compute with; the library's own choice by default."),
        ]
    ):  # fmt: skip
        command = decorate(command)
    return command


def sampling_options(command: F) -> F:
    """How tokens are picked and when to stop."""
    for decorate in reversed(
        [
            option("-n", "--max-tokens", type=int, metavar="N", help="Most tokens of the answer."),
            option("--preset", metavar="NAME", help="greedy, focused, balanced, creative or very-creative."),
            option("--greedy", is_flag=True, help="Always the likeliest token: --preset greedy."),
            option("--temp", "--temperature", "temperature", type=float, metavar="T",
                   help="0 is greedy; 2 at most."),
            option("--top-k", type=int, metavar="K", help="Pick among the K likeliest; 0 is off."),
            option("--top-p", type=float, metavar="P", help="Pick among the likeliest that sum to P."),
            option("--min-p", type=float, metavar="P", help="Drop what is below P times the likeliest."),
            option("--repetition-penalty", type=float, metavar="X", help="Above 1: repeat less."),
            option("--presence-penalty", type=float, metavar="X", help="Taken off tokens answered before."),
            option("--frequency-penalty", type=float, metavar="X", help="Taken off for each time answered."),
            option("--seed", type=int, metavar="N", help="The same seed gives the same answer."),
            option("--stop", multiple=True, metavar="TEXT", help="End before this text."),
            option("--min-tokens", type=int, metavar="N", help="Do not end before N tokens."),
            option("--ignore-eos", is_flag=True, default=None, help="Go on after the model's end token."),
            option("--logit-bias", multiple=True, metavar="ID=B", help="Add B to a token's score."),
            option("--logprobs", type=int, metavar="N", help="With --json: log probabilities, N a token."),
        ]
    ):  # fmt: skip
        command = decorate(command)
    return command


def time_limit(command: F) -> F:
    """How long an answer may take."""
    seconds = click.FloatRange(min=0, min_open=True)
    return option("--timeout", type=seconds, metavar="SECONDS", help="Give up after this long.")(command)


def runtime(said: dict[str, Any]) -> Runtime:
    """Where and how to compute, as far as a command's options say."""
    from backends.base import Runtime

    return Runtime(**{name: said[name] for name in ("device", "dtype", "threads", "vision") if name in said})


def make_router(said: dict[str, Any], listener: Listener, model: Model | None = None) -> Router:
    """A router for ``model``, or for the one that a command's options name, found or fetched."""
    from router.images import InputLimits
    from router.models import find
    from router.router import Router

    return Router(
        model or find(said["model"], listener, offline=said["offline"]),
        runtime(said),
        listener=listener,
        policy=said["policy"],
        memory=None if said["memory"] is None else int(said["memory"] * 1e9),
        make_exports=not said["no_export"],
        context=said.get("ctx_size"),
        max_images=said.get("max_images") or InputLimits.max_images,
    )


def sampling(said: dict[str, Any]) -> Sampling:
    """What the sampling options among a command's options say, the preset under the single ones."""
    from dataclasses import fields

    from router.sampling import PRESETS
    from router.types import Sampling

    preset = _preset(said["preset"], said["greedy"], said["temperature"])
    if preset is not None and preset not in PRESETS:
        raise click.UsageError(f"--preset must be one of {', '.join(PRESETS)}, got '{preset}'")
    values = {field.name: said.get(field.name) for field in fields(Sampling)}
    values["stop"] = said["stop"] or None
    values["logit_bias"] = tuple(map(_bias, said["logit_bias"])) or None
    return Sampling(**values).over(PRESETS[preset] if preset else Sampling())


def image_limits(said: dict[str, Any]) -> InputLimits:
    """What is accepted as an image."""
    from router.images import InputLimits

    most = said["max_image_pixels"]
    return InputLimits() if most is None else InputLimits(max_pixels=most)


def check_used(resolved: Sampling, options: dict[str, Any]) -> None:
    """Refuse a filter that nothing would pass through, which is only known with the model's defaults."""
    idle = [
        f"--{name.replace('_', '-')}" for name in ("top_k", "top_p", "min_p") if options[name] is not None
    ]
    if idle and resolved.temperature == 0:
        raise click.UsageError(
            f"{idle[0]} does nothing at temperature 0, where this answer is; add --temp 0.7"
        )


def _preset(name: str | None, greedy: bool, temperature: float | None) -> str | None:
    if not greedy:
        return name
    if name not in (None, "greedy") or temperature:
        raise click.UsageError("--greedy excludes --temp and other presets; drop one of them")
    return "greedy"


def _bias(text: str) -> tuple[int, float]:
    token, equals, bias = text.partition("=")
    try:
        if equals:
            return int(token), float(bias)
    except ValueError:
        pass
    raise click.UsageError(f"--logit-bias wants ID=B, such as 42=-5, got '{text}'")
