"""A crowd before ``hybrid serve``: many streams, many who leave, and many requests, half of them bad.

python -m benchmarks.load                      # all three, of the embedded model
python -m benchmarks.load streams leaving
nice python -m benchmarks.load soak -n 10000
"""

from __future__ import annotations

import argparse

from benchmarks.load.leaving import measure_leaving
from benchmarks.load.soak import measure_soak
from benchmarks.load.streams import measure_streams


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="streams, leaving, soak; all by default")
    parser.add_argument("-n", "--requests", type=int, default=10_000)
    said = parser.parse_args()
    measures = {
        "streams": measure_streams,
        "leaving": measure_leaving,
        "soak": lambda: measure_soak(said.requests),
    }
    for name, measure in measures.items():
        if not said.names or name in said.names:
            measure()


if __name__ == "__main__":
    main()
