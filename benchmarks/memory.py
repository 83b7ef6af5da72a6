"""What the onnx and genai backends take of memory, each alone and both in one process, over one weights file.

    python -m benchmarks.memory ./qwen3-vl-2b-int4

Each row is a process of its own that loaded the backends named and read and wrote a few tokens with each.
"all" is resident memory; "own" is its part that no file stands behind; "share" counts a page that is mapped
several times once, and in equal parts (Linux: VmRSS, RssAnon, Pss).
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np

import backends
from backends import Prompt, Runtime
from router.models import SILENT, ensure_packed

ROWS = ("onnx", "genai", "onnx,genai")
PROMPT, ANSWER = 128, 16  # tokens


def main() -> None:
    """Measure a row, or start a process for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("export", type=Path, help="an export folder, or a checkpoint's in the cache")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        print(measured(options.export, options.only.split(","), options.threads))
        return
    weights = options.export / "weights.data"
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    found = weights.stat()
    print(f"weights.data: inode {found.st_ino}, {found.st_size} bytes, sha256 {digest}\n")
    print("| loaded | all, MB | own, MB | share, MB |\n|---|---|---|---|")
    for row in ROWS:
        again = [sys.executable, "-m", "benchmarks.memory", str(options.export), "--only", row]
        again += ["--threads", str(options.threads)] if options.threads else []
        done = subprocess.run(again, capture_output=True, text=True, check=True)
        print(f"| {row.replace(',', ' and ')} | {done.stdout.strip()} |", flush=True)


def measured(export: Path, names: list[str], threads: int | None) -> str:
    """Load the backends, answer with each, and tell the memory as cells of the table."""
    packed = ensure_packed(export, "cpu", SILENT)
    runtime = Runtime(threads=threads, packed=packed)
    loaded = [backends.load(name, export, runtime) for name in names]
    prompt = Prompt(np.arange(PROMPT))
    for backend in loaded:
        with closing(backend.open(PROMPT + ANSWER)) as session:
            session.prefill(prompt)
            for token in range(ANSWER):
                session.decode(token)
    told = _kilobytes("/proc/self/status") | _kilobytes("/proc/self/smaps_rollup")
    return " | ".join(f"{told[name] / 1000:.0f}" for name in ("VmRSS", "RssAnon", "Pss"))


def _kilobytes(file: str) -> dict[str, float]:
    lines = (line.split() for line in Path(file).read_text().splitlines())
    return {words[0].rstrip(":"): 1.024 * int(words[1]) for words in lines if words[-1] == "kB"}


if __name__ == "__main__":
    main()
