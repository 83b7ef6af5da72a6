"""``hybrid serve`` in a process of its own, on a free port of this machine, and what can be seen of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 300.0  # a large model's export may have to be arranged for this processor first
_RUN = "from router.cli import main; main()"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """What the system says of a process."""

    memory: int  # bytes resident
    files: int  # open
    threads: int


@dataclass(frozen=True)
class Server:
    """A running server."""

    child: subprocess.Popen[bytes]
    port: int
    key: str = ""

    @property
    def pid(self) -> int:
        """Its process."""
        return self.child.pid

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What lets a request in."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def process(self) -> Process:
        """Its memory, files and threads now."""
        at = Path("/proc") / str(self.pid)
        pages = int((at / "statm").read_text().split()[1])
        return Process(pages * _PAGE, len(list((at / "fd").iterdir())), len(list((at / "task").iterdir())))

    def cpu_seconds(self) -> float:
        """What it has computed so far."""
        fields = (Path("/proc") / str(self.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def figure(self, name: str) -> float:
        """The sum of one of its figures over the labels."""
        text = httpx2.get(f"{self.address}/metrics", headers=self.headers).text
        lines = (line for line in text.splitlines() if line.startswith(f"hybrid_{name}{{"))
        return sum(float(line.split()[-1]) for line in lines)


@contextmanager
def served(*options: str, **environment: str) -> Iterator[Server]:
    """A server, ready, with these options and variables; of the embedded model unless they name another."""
    command = [sys.executable, "-c", _RUN, "serve", "--port", "0", *options]
    with tempfile.NamedTemporaryFile() as log:  # a pipe would fill up, and hold the server
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stderr=log)
        try:
            yield _ready(process, Path(log.name), environment.get("HYBRID_API_KEY", ""))
        finally:
            process.terminate()
            process.wait(30)


def _ready(child: subprocess.Popen[bytes], log: Path, key: str) -> Server:
    since = time.monotonic()
    while time.monotonic() - since < _START_SECONDS and child.poll() is None:
        found = re.search(r"http://[^ ]+:(\d+)\n", log.read_text())
        if found and _answers(int(found[1])):
            return Server(child, int(found[1]), key)
        time.sleep(0.1)
    raise SystemExit(f"the server did not become ready:\n{log.read_text()}")


def _answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx2.TransportError:
        return False  # it has ended again, and the log says why
