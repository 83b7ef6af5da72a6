"""Options that several commands share, and the values they stand for."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import click

from router.cli.fields import group, option, options_class

if TYPE_CHECKING:
    from backends.base import Device, DType, Runtime, Vision
    from router.images import InputLimits
    from router.models import Listener, Model
    from router.router import Router
    from router.types import Sampling

NOTICE = (
    "hybrid: answering with 'scenes', the small embedded model: it knows colours and shapes in simple "
    "images, nothing else. For a real one: -m Qwen/Qwen3-VL-2B-Instruct (fetched on first use), or set "
    "HYBRID_MODEL"
)
POSITIVE_SECONDS = click.FloatRange(min=0, min_open=True)


@options_class
class RuntimeOptions:
    """Where and in which numbers to compute."""

    device: Device = option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute."
    )
    dtype: DType = option(
        "--dtype",
        type=click.Choice(["auto", "bf16", "fp32"]),
        default="auto",
        help="Number format of the torch backend.",
    )
    vision: Vision = option(
        "--vision",
        type=click.Choice(["onnx", "torch"]),
        default="onnx",
        help="What encodes images for the onnx backend.",
    )
    threads: int | None = option(
        "--threads",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Threads to compute with; the library's own choice by default.",
    )

    def to_runtime(self) -> Runtime:
        """The same for backends."""
        from backends.base import Runtime

        return Runtime(self.device, self.dtype, self.threads, self.vision)


@options_class
class ModelOptions:
    """Which model answers, by which backends, with how much memory."""

    model: str | None = option(
        "-m",
        "--model",
        metavar="scenes|DIR|ID",
        help="The embedded model, a checkpoint or export folder, or a hub id.",
    )
    backend: str = option(
        "--backend",
        default="auto",
        show_default=True,
        metavar="auto|NAME",
        help="Which backend answers: genai, onnx, torch, or auto to pick one by the request.",
    )
    policy: str = option(
        "--policy",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="How auto picks: auto, fastest, prefer:a,b,c, or a backend.",
    )
    no_export: bool = option(
        "--no-export", is_flag=True, help="Do not export a model that has no export yet."
    )
    memory: float | None = option(
        "--memory",
        type=click.FloatRange(min=0, min_open=True),
        metavar="GB",
        help="For loaded backends, all together; most of the machine's by default.",
    )
    offline: bool = option("--offline", is_flag=True, help="Do not ask the hub.")
    runtime: RuntimeOptions = group(RuntimeOptions)

    @property
    def named_backend(self) -> str | None:
        """The backend that is to answer; None: the router picks."""
        return None if self.backend == "auto" else self.backend

    def make_router(
        self,
        listener: Listener,
        model: Model | None = None,
        *,
        context: int | None = None,
        max_images: int | None = None,
    ) -> Router:
        """A router for ``model``, or for the one that is named, found or fetched.

        ``context``: most tokens of a prompt and its answer; ``max_images``: of a request.
        """
        from router.images import InputLimits
        from router.models import find
        from router.router import Router

        return Router(
            model or find(self.model, listener, offline=self.offline),
            self.runtime.to_runtime(),
            listener=listener,
            policy=self.policy,
            memory=None if self.memory is None else int(self.memory * 1e9),
            make_exports=not self.no_export,
            context=context,
            max_images=max_images or InputLimits.max_images,
        )


@options_class
class ConversationOptions:
    """What the model is told and shown, and how large images may be."""

    images: tuple[str, ...] = option(
        "-i", "--image", multiple=True, metavar="PATH|-", help="An image; may be repeated."
    )
    system: str | None = option(
        "-s", "--system", metavar="TEXT", help="What the model is told before the conversation."
    )
    min_pixels: int | None = option(
        "--min-pixels", type=click.IntRange(min=1), metavar="N", help="Enlarge images below N pixels."
    )
    max_pixels: int | None = option(
        "--max-pixels", type=click.IntRange(min=1), metavar="N", help="Shrink images above N pixels."
    )
    max_image_pixels: int | None = option(
        "--max-image-pixels",
        type=click.IntRange(min=1),
        metavar="N",
        help="Refuse to decode images above N pixels; 40 million by default.",
    )

    def to_limits(self) -> InputLimits:
        """What is accepted as an image."""
        from router.images import InputLimits

        most = self.max_image_pixels
        return InputLimits() if most is None else InputLimits(max_pixels=most)


@options_class
class SamplingOptions:
    """How tokens are picked and when to stop."""

    max_tokens: int | None = option(
        "-n", "--max-tokens", type=int, metavar="N", help="Most tokens of the answer."
    )
    preset: str | None = option(
        "--preset", metavar="NAME", help="greedy, focused, balanced, creative or very-creative."
    )
    greedy: bool = option("--greedy", is_flag=True, help="Always the likeliest token: --preset greedy.")
    temperature: float | None = option(
        "--temp", "--temperature", type=float, metavar="T", help="0 is greedy; 2 at most."
    )
    top_k: int | None = option("--top-k", type=int, metavar="K", help="Pick among the K likeliest; 0 is off.")
    top_p: float | None = option(
        "--top-p", type=float, metavar="P", help="Pick among the likeliest that sum to P."
    )
    min_p: float | None = option(
        "--min-p", type=float, metavar="P", help="Drop what is below P times the likeliest."
    )
    repetition_penalty: float | None = option(
        "--repetition-penalty", type=float, metavar="X", help="Above 1: repeat less."
    )
    presence_penalty: float | None = option(
        "--presence-penalty", type=float, metavar="X", help="Taken off tokens answered before."
    )
    frequency_penalty: float | None = option(
        "--frequency-penalty", type=float, metavar="X", help="Taken off for each time answered."
    )
    seed: int | None = option("--seed", type=int, metavar="N", help="The same seed gives the same answer.")
    stop: tuple[str, ...] = option("--stop", multiple=True, metavar="TEXT", help="End before this text.")
    min_tokens: int | None = option("--min-tokens", type=int, metavar="N", help="Do not end before N tokens.")
    ignore_eos: bool | None = option(
        "--ignore-eos", is_flag=True, default=None, help="Go on after the model's end token."
    )
    logit_bias: tuple[str, ...] = option(
        "--logit-bias", multiple=True, metavar="ID=B", help="Add B to a token's score."
    )
    logprobs: int | None = option(
        "--logprobs", type=int, metavar="N", help="With --json: log probabilities, N a token."
    )

    def to_sampling(self) -> Sampling:
        """The same for the loop, single ones over the preset; click.UsageError: they exclude each other."""
        from router.sampling import PRESETS
        from router.types import Sampling

        preset = self._preset()
        if preset is not None and preset not in PRESETS:
            raise click.UsageError(f"--preset must be one of {', '.join(PRESETS)}, got '{preset}'")
        values = {each.name: getattr(self, each.name, None) for each in fields(Sampling)}
        values["stop"] = self.stop or None
        values["logit_bias"] = tuple(map(_bias, self.logit_bias)) or None
        return Sampling(**values).over(PRESETS[preset] if preset else Sampling())

    def check_used(self, resolved: Sampling) -> None:
        """Refuse a filter that nothing would pass through, which is only known with the model's defaults."""
        filters = {"--top-k": self.top_k, "--top-p": self.top_p, "--min-p": self.min_p}
        idle = [flag for flag, value in filters.items() if value is not None]
        if idle and resolved.temperature == 0:
            raise click.UsageError(
                f"{idle[0]} does nothing at temperature 0, where this answer is; add --temp 0.7"
            )

    def _preset(self) -> str | None:
        if not self.greedy:
            return self.preset
        if self.preset not in (None, "greedy") or self.temperature:
            raise click.UsageError("--greedy excludes --temp and other presets; drop one of them")
        return "greedy"


@options_class
class RequestOptions:
    """What is asked, of which model, and how tokens are picked."""

    conversation: ConversationOptions = group(ConversationOptions)
    router: ModelOptions = group(ModelOptions)
    sampling: SamplingOptions = group(SamplingOptions)


def _bias(text: str) -> tuple[int, float]:
    token, equals, bias = text.partition("=")
    try:
        if equals:
            return int(token), float(bias)
    except ValueError:
        pass
    raise click.UsageError(f"--logit-bias wants ID=B, such as 42=-5, got '{text}'")
