"""Scores in, a token out: the one sampler that every backend shares.

What each field of ``Sampling`` does is in ``sampler``, its range in ``limits``, its value when nobody says in
``defaults``; ``constraint`` is how an answer is held to a form.
"""

from router.sampling.defaults import BUILT_IN, PRESETS, from_generation_config
from router.sampling.grammar import FREE, Constraint
from router.sampling.limits import check
from router.sampling.sampler import Sampler, end_tokens, score

__all__ = [
    "BUILT_IN",
    "FREE",
    "PRESETS",
    "Constraint",
    "Sampler",
    "check",
    "end_tokens",
    "from_generation_config",
    "score",
]
