"""Many requests, half of them bad: the memory, files and threads of the server."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np

from benchmarks.load.bodies import CHAT, bad, client, good
from benchmarks.served import Process, Server, served

SCRIPT = json.dumps({"tokens": [40, 41, 42, 43] * 8 + [1012]})
_CLIENTS = 4
_LOOKS = 50  # at the server on the way


def measure_soak(count: int) -> None:
    """The slope of the memory over the requests after the first fifth, and the files and threads."""
    with served("--max-queue", "16", HYBRID_SCRIPT=SCRIPT) as server:
        since = time.perf_counter()
        looks, ends = asyncio.run(soak(server, count))
        seconds = time.perf_counter() - since
    warm = [at for at in looks if at.requests >= count // 5]
    thousands = np.array([at.requests for at in warm]) / 1000
    megabytes = np.array([at.process.memory for at in warm]) / 1e6
    (slope, _), spread = np.polyfit(thousands, megabytes, 1, cov=True)
    print(f"{count} requests in {seconds:.0f} s: {dict(sorted(ends.items()))}")
    print(
        f"memory: {megabytes[0]:.1f} MB, then {megabytes[-1]:.1f} MB, from {megabytes.min():.1f} to "
        f"{megabytes.max():.1f}; {slope:+.2f} MB for each 1,000, to within {2 * spread[0, 0] ** 0.5:.2f}"
    )
    for name in ("files", "threads"):
        values = [getattr(at.process, name) for at in warm]
        print(f"{name}: {values[0]} at first, {values[-1]} at last, from {min(values)} to {max(values)}")


@dataclass(frozen=True)
class Soaked:
    """The server after so many requests."""

    requests: int
    process: Process


async def soak(server: Server, count: int) -> tuple[list[Soaked], Counter[str]]:
    """Mixed requests by four clients; a look at the server fifty times on the way."""
    draw = random.Random(7)
    requests = iter([(i, draw.choice(bad() if i % 2 else good())) for i in range(count)])
    ends: Counter[str] = Counter()
    looks: list[Soaked] = []

    async def ask() -> None:
        async with client(server, 1) as connection:
            for i, request in requests:
                ends[await _once(connection, request, leaves=draw.random() < 0.02)] += 1
                if i % (count // _LOOKS) == 0:
                    looks.append(Soaked(i, server.process()))

    await asyncio.gather(*(ask() for _ in range(_CLIENTS)))
    await asyncio.sleep(1.0)
    looks.append(Soaked(count, server.process()))
    return looks, ends


async def _once(connection: httpx2.AsyncClient, request: Any, leaves: bool) -> str:
    data = request if isinstance(request, str) else json.dumps(request)
    headers = {"content-type": "application/json"}
    async with connection.stream("POST", CHAT, content=data, headers=headers) as response:
        if leaves:
            return "left"
        await response.aread()
    return str(response.status_code)
