"""What an answer took, from the moments at which its tokens came."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from router.bench.engine import Sample


def sample(prompt_tokens: int, started: float, arrivals: Sequence[float]) -> Sample:
    """Of an answer that was asked for at ``started`` and whose every token came at one of ``arrivals``."""
    return Sample(
        prompt_tokens=prompt_tokens,
        output_tokens=len(arrivals),
        first_token_seconds=arrivals[0] - started,
        decode_seconds=arrivals[-1] - arrivals[0],
        total_seconds=time.perf_counter() - started,
        gaps=tuple(after - before for before, after in pairwise(arrivals)),
    )
