"""Many streams at once, while another process asks how the server is."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import httpx2
import numpy as np

from benchmarks.load.bodies import CHAT, IMAGE, body, client, imaged
from benchmarks.served import Server, served

STREAMS = 64
_HEALTH_EVERY = 0.02  # seconds


def measure_streams() -> None:
    """With a line of the usual length, and with one as long as the crowd."""
    for options in ((), ("--max-queue", str(STREAMS))):
        with served(*options) as server:
            settings = " ".join(options) or "the defaults"
            print(f"{STREAMS} streams, {settings}: {asyncio.run(streams(server))}", flush=True)


async def streams(server: Server) -> str:
    """All at once, every second one with an image."""
    bodies = [body(stream=True), imaged(IMAGE, stream=True)]
    with health_timed(server) as times:
        async with client(server, STREAMS) as connection:
            since = time.perf_counter()
            ends = await asyncio.gather(*(stream(connection, bodies[i % 2]) for i in range(STREAMS)))
            seconds = time.perf_counter() - since
    counts = ", ".join(f"{count} {end}" for end, count in sorted(Counter(ends).items()))
    median, most = np.quantile(times, 0.5), max(times)
    return f"{counts} in {seconds:.1f} s; /health p50 {median:.1f} ms, most {most:.1f} ms of {len(times)}"


async def stream(connection: httpx2.AsyncClient, request: dict[str, Any]) -> str:
    """What became of one stream: "whole", a status, or how it broke off."""
    try:
        async with connection.stream("POST", CHAT, json=request) as response:
            text = (await response.aread()).decode()
    except httpx2.TimeoutException:
        return "hung"
    if response.status_code != 200:
        return str(response.status_code)
    whole = text.endswith("data: [DONE]\n\n") and '"finish_reason":"stop"' in text.replace(" ", "")
    return "whole" if whole else "broken"


@contextmanager
def health_timed(server: Server) -> Iterator[list[float]]:
    """The milliseconds that /health takes meanwhile, there at the end; asked by a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_ask_health, args=(server.address, there), daemon=True)
    process.start()
    here.recv()  # it has begun
    times: list[float] = []
    try:
        yield times
    finally:
        here.send("enough")
        times += here.recv()
        process.join()


def _ask_health(address: str, pipe: Connection) -> None:
    times: list[float] = []
    with httpx2.Client(base_url=address, timeout=30) as connection:
        connection.get("/health").raise_for_status()
        pipe.send("begun")
        while not pipe.poll(_HEALTH_EVERY):
            since = time.perf_counter()
            connection.get("/health").raise_for_status()
            times.append((time.perf_counter() - since) * 1000)
    pipe.send(times)
