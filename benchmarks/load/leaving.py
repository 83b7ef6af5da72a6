"""Many streams that are left at one moment: what is computed later, and when the next is answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

from benchmarks.load.bodies import CHAT, ENDLESS, body, client
from benchmarks.served import Server, served

LEAVERS = 200


def measure_leaving() -> None:
    """Who leaves a script that is played slowly, and who leaves each backend."""
    script = json.dumps({"tokens": [40, 41], "delay": 0.02})
    options = ("--max-concurrency", "8", "--max-queue", str(LEAVERS))
    with served(*options, HYBRID_SCRIPT=script) as server:
        for backend in ("scripted", "onnx", "genai"):
            outcome = asyncio.run(leave(server, f"scenes@{backend}"))
            print(f"{LEAVERS} leaving {backend}: {outcome}", flush=True)


async def leave(server: Server, model: str) -> str:
    """Streams that are all left at one moment, when their headers are there and some of them are answered."""
    connection = client(server, LEAVERS)
    try:
        requests = [
            connection.build_request("POST", CHAT, json=body(model=model, stream=True, **ENDLESS))
            for _ in range(LEAVERS)
        ]
        opened = await asyncio.gather(*(connection.send(request, stream=True) for request in requests))
        assert all(response.status_code == 200 for response in opened), Counter(r.status_code for r in opened)
        running, waiting = await _figures(server)
        await asyncio.gather(*(response.aclose() for response in opened))
    finally:
        await connection.aclose()
    await asyncio.sleep(1.0)
    left, computed = await _figures(server), server.cpu_seconds()
    await asyncio.sleep(1.0)
    computed = server.cpu_seconds() - computed
    async with client(server, 1) as next_one:
        since = time.perf_counter()
        answered = await next_one.post(CHAT, json=body(model=model, max_tokens=3))
    answered.raise_for_status()
    return (
        f"{running:.0f} running and {waiting:.0f} waiting; a second later {left[0]:.0f} and {left[1]:.0f}, "
        f"computing {computed:.2f} s in the next second; the next answer after "
        f"{(time.perf_counter() - since) * 1000:.0f} ms"
    )


async def _figures(server: Server) -> tuple[float, float]:
    def read() -> tuple[float, float]:
        return server.figure("requests_running"), server.figure("requests_waiting")

    return await asyncio.to_thread(read)
