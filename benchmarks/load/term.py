"""SIGTERM in the middle of many streams: how each of them ends, and when the server has."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter

import httpx2

from benchmarks.load.bodies import CHAT, body, client
from benchmarks.served import Server, served

STREAMS = 12  # four are answered at once and eight wait, by default
DRAIN_SECONDS = 3
_ANSWERS = {"short": 60, "endless": 3000}  # tokens
_LATER = 0.5  # seconds after the signal, when one more comes


def measure_term() -> None:
    """Answers that end within the drain time, and answers that do not, of each backend."""
    script = json.dumps({"tokens": [40, 41], "delay": 0.01})
    for backend in ("scripted", "onnx", "genai"):
        for name, tokens in _ANSWERS.items():
            with served("--drain-timeout", str(DRAIN_SECONDS), HYBRID_SCRIPT=script) as server:
                outcome = asyncio.run(terminated(server, f"scenes@{backend}", tokens))
            print(f"{STREAMS} {name} streams of {backend}: {outcome}", flush=True)


async def terminated(server: Server, model: str, tokens: int) -> str:
    """What becomes of streams that have begun when the signal comes, and of who comes later."""
    request = body(model=model, stream=True, max_tokens=tokens, ignore_eos=True)
    async with client(server, STREAMS + 1) as connection:
        requests = [connection.build_request("POST", CHAT, json=request) for _ in range(STREAMS)]
        opened = await asyncio.gather(*(connection.send(request, stream=True) for request in requests))
        reading = [asyncio.create_task(_end(response)) for response in opened]
        since = time.perf_counter()
        server.child.send_signal(signal.SIGTERM)
        exiting = asyncio.create_task(asyncio.to_thread(server.child.wait, 60))
        await asyncio.sleep(_LATER)
        later = await _status(connection)
        ends = Counter(await asyncio.gather(*reading))
        code = await exiting
    counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    return (
        f"{counts}; one who came {_LATER} s later: {later}; exit code {code} after "
        f"{time.perf_counter() - since:.2f} s, {DRAIN_SECONDS} being the drain time"
    )


async def _end(response: httpx2.Response) -> str:
    """How a stream ended: "whole", "told of an error", or "broken"."""
    pieces: list[str] = []
    try:
        async for piece in response.aiter_text():
            pieces.append(piece)
    except httpx2.TransportError:
        return "broken off"
    finally:
        await response.aclose()
    *_, last = "".join(pieces).strip().split("\n\n")
    if last == "data: [DONE]":
        return "whole"
    return "told of an error" if last.startswith('data: {"error"') else "broken"


async def _status(connection: httpx2.AsyncClient) -> str:
    try:
        return str((await connection.post(CHAT, json=body())).status_code)
    except httpx2.TransportError:
        return "not let in, the server had ended"
