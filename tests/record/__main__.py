import sys

from tests.record.record import lines

if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    for line in lines():
        print(line, flush=True)
