"""A crowd before ``hybrid serve``: what it answers, what it refuses, and what it takes meanwhile.

python -m benchmarks.load                      # all of them, of the embedded model
python -m benchmarks.load streams leaving
nice python -m benchmarks.load soak -n 10000
python -m benchmarks.load reuse -m ./qwen3-vl-2b-int4
"""

from __future__ import annotations

import argparse

from benchmarks.load.corpus import measure_corpus
from benchmarks.load.leaving import measure_leaving
from benchmarks.load.reuse import measure_reuse
from benchmarks.load.slow import measure_slow
from benchmarks.load.soak import measure_soak
from benchmarks.load.streams import measure_streams
from benchmarks.load.term import measure_term


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    said_model = "the model of reuse, which needs one that takes its time over a picture"
    parser.add_argument("-m", "--model", default="scenes", help=said_model)
    parser.add_argument("-n", "--requests", type=int, default=10_000, help="of soak")
    measures = {
        "streams": measure_streams,
        "leaving": measure_leaving,
        "term": measure_term,
        "corpus": measure_corpus,
        "slow": measure_slow,
        "reuse": lambda: measure_reuse(said.model),
        "soak": lambda: measure_soak(said.requests),
    }
    parser.add_argument("names", nargs="*", help=f"{', '.join(measures)}; all by default")
    said = parser.parse_args()
    if unknown := set(said.names) - set(measures):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(measures)}")
    for name, measure in measures.items():
        if not said.names or name in said.names:
            measure()


if __name__ == "__main__":
    main()
