"""A crowd before ``hybrid serve``: what it answers, what it refuses, and what it takes meanwhile.

python -m benchmarks.load                      # all of them, of the embedded model
python -m benchmarks.load streams leaving
nice python -m benchmarks.load soak -n 10000
python -m benchmarks.load reuse -m ./qwen3-vl-2b-int4
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.load.corpus import measure_corpus
from benchmarks.load.leaving import measure_leaving
from benchmarks.load.reuse import measure_reuse
from benchmarks.load.slow import measure_slow
from benchmarks.load.soak import measure_soak
from benchmarks.load.streams import measure_streams
from benchmarks.load.term import measure_term

MEASURES: dict[str, Callable[[argparse.Namespace], None]] = {
    "streams": lambda _: measure_streams(),
    "leaving": lambda _: measure_leaving(),
    "term": lambda _: measure_term(),
    "corpus": lambda _: measure_corpus(),
    "slow": lambda _: measure_slow(),
    "reuse": lambda options: measure_reuse(options.model),
    "soak": lambda options: measure_soak(options.requests),
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"{', '.join(MEASURES)}; all by default")
    parser.add_argument("-m", "--model", default="scenes", help="of reuse; large, so that images take time")
    parser.add_argument("-n", "--requests", type=int, default=10_000, help="of soak")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MEASURES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    for name, measure in MEASURES.items():
        if not options.names or name in options.names:
            measure(options)


if __name__ == "__main__":
    main()
