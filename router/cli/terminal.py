"""How answers, decisions and figures look on a terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from router.cli.exit_codes import OutputError

if TYPE_CHECKING:
    from router.types import Completion, Decision, Stats


def write(text: str) -> None:
    """Text to stdout at once; OutputError when the disk or the device does not take it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the answer cannot be written to stdout: {error.strerror}") from None


def decision_line(decision: Decision) -> str:
    """Which backend answers, why, and which would be next."""
    then = f" (then {', '.join(decision.fallbacks)})" if decision.fallbacks else ""
    return f"{decision.backend}: {decision.reason}{then}"


def usage_line(stats: Stats) -> str:
    """What an answer took, in one line."""
    prompt = f"{stats.prompt_tokens} prompt tokens"
    if stats.resized:
        sizes = ", ".join(f"{width}x{height}" for width, height in stats.resized)
        prompt += (
            f", {stats.image_tokens} of them for {_count(len(stats.resized), 'picture')} read at {sizes}"
        )
    if stats.cached_tokens:
        prompt += f", {stats.cached_tokens} of them read before"
    first = f"first token after {stats.first_token_seconds:.2f} s"
    if stats.image_tokens:
        first += f" (vision {stats.vision_seconds:.2f} s)"
    speed = f"{stats.tokens_per_second:.1f} tok/s" if stats.tokens_per_second else "one token"
    return f"{stats.backend}: {prompt}; {_count(stats.output_tokens, 'output token')}; {first}; {speed}"


def as_json(completion: Completion) -> str:
    """A whole answer as one JSON object."""
    stats, decision = completion.stats, completion.decision
    return json.dumps(
        {
            "text": completion.text,
            "finish": completion.finish,
            "backend": stats.backend,
            "reason": decision.reason,
            "usage": {
                "prompt_tokens": stats.prompt_tokens,
                "image_tokens": stats.image_tokens,
                "cached_tokens": stats.cached_tokens,
                "output_tokens": stats.output_tokens,
            },
            "timings": {
                "vision_seconds": stats.vision_seconds,
                "prefill_seconds": stats.prefill_seconds,
                "decode_seconds": stats.decode_seconds,
                "tokens_per_second": stats.tokens_per_second,
            },
            "resized": stats.resized,
            "tokens": completion.tokens,
            "logprobs": [asdict(score) for score in completion.logprobs] or None,
        },
        ensure_ascii=False,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
