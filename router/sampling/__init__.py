"""Scores in, a token out: the one sampler that every backend shares.

::

    Sampler      picks one token from one row of scores, in the order that its file documents
    options      the range of every field of `Sampling`, presets, and values where nobody says
    ModelRules   what only a model's generation_config.json sets, and the sampler holds to
    Constraint   which tokens may come next; Schemas makes those of a JSON schema
"""

from router.sampling.generation_config import from_generation_config, ignored, rules_from
from router.sampling.grammar import ANY_OBJECT, FREE, Constraint, Schemas
from router.sampling.options import (
    BUILT_IN,
    MAX_BIASES,
    MAX_STOPS,
    PRESETS,
    check,
    check_numbers,
)
from router.sampling.rules import NO_RULES, ModelRules
from router.sampling.sampler import Sampler, end_tokens, score

__all__ = [
    "ANY_OBJECT",
    "BUILT_IN",
    "FREE",
    "MAX_BIASES",
    "MAX_STOPS",
    "NO_RULES",
    "PRESETS",
    "Constraint",
    "ModelRules",
    "Sampler",
    "Schemas",
    "check",
    "check_numbers",
    "end_tokens",
    "from_generation_config",
    "ignored",
    "rules_from",
    "score",
]
