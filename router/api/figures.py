"""What an answer took, in OpenAI's words and in llama.cpp's."""

from __future__ import annotations

from backends.base import Prompt
from router.api.objects import CompletionDetails, PromptDetails, Timings, Usage
from router.types import Stats


def usage(stats: Stats) -> Usage:
    """Tokens of the prompt and of the answer."""
    return Usage(
        prompt_tokens=stats.prompt_tokens,
        completion_tokens=stats.output_tokens,
        total_tokens=stats.prompt_tokens + stats.output_tokens,
        prompt_tokens_details=PromptDetails(
            cached_tokens=stats.cached_tokens,
            image_tokens=stats.image_tokens,
        ),
        completion_tokens_details=CompletionDetails(),
    )


def timings(stats: Stats, prompt: Prompt) -> Timings:
    """Milliseconds and tokens a second, and at what size the pictures of ``prompt`` were read."""
    read = stats.prompt_tokens - stats.cached_tokens
    return Timings(
        cache_n=stats.cached_tokens,
        prompt_n=read,
        prompt_ms=_ms(stats.prefill_seconds),
        prompt_per_second=round(read / stats.prefill_seconds, 2) if stats.prefill_seconds > 0 else 0.0,
        predicted_n=stats.output_tokens,
        predicted_ms=_ms(stats.decode_seconds),
        predicted_per_second=round(stats.tokens_per_second, 2),
        vision_ms=_ms(stats.vision_seconds),
        image_tokens=stats.image_tokens,
        image_grid_thw=[] if prompt.grid is None else [(t, h, w) for t, h, w in prompt.grid.tolist()],
        resized_to=list(stats.resized),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
