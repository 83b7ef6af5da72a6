"""Five hundred connections that send a request byte by byte: what normal requests notice of them."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import httpx2
import numpy as np

from benchmarks.load.bodies import CHAT, IMAGE, body, imaged
from benchmarks.served import Server, served

SLOW = 500
ROUNDS = 6  # without the crowd and with it, by turns
_REQUESTS = 250  # in each half of a round
_BYTE_EVERY = 1.0  # seconds; the server gives up on each connection after 30 and it comes again
_SCRIPT = json.dumps({"tokens": [40, 41, 42, 43] * 4 + [1012]})
_HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n".encode()
_BEGUN = _HEAD + b'Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"model": "'


def measure_slow() -> None:
    """A script's answer, where what the server itself does is all there is, and the model's of an image."""
    bodies = {
        "a script's answer": body(model="scenes@scripted"),
        "an image": imaged(IMAGE, max_tokens=8),
    }
    with served(HYBRID_SCRIPT=_SCRIPT) as server:
        for name, request in bodies.items():
            print(f"{name}: {compared(server, request)}", flush=True)


def compared(server: Server, request: dict[str, Any]) -> str:
    """The time of one request after the other, with the crowd and without it."""
    alone: list[float] = []
    beside: list[float] = []
    crowd = Crowd()
    with httpx2.Client(base_url=server.address, timeout=60) as client:
        _times(client, request)  # whatever is slower at first
        for _ in range(ROUNDS):
            alone += _times(client, request)
            with crowded(server, crowd):
                beside += _times(client, request)
    figures = [float(np.quantile(times, q)) for q in (0.5, 0.99) for times in (alone, beside)]
    return (
        f"p50 {figures[0]:.1f} ms alone, {figures[1]:.1f} beside {SLOW} slow connections; "
        f"p99 {figures[2]:.1f} and {figures[3]:.1f} ms, {figures[3] / figures[2]:.2f} x, "
        f"of {len(alone)} and {len(beside)} requests; {crowd.files} files open at least, "
        f"{crowd.sent} bytes trickled in, {crowd.ended} connections ended by the server"
    )


@dataclass
class Crowd:
    """What the slow connections came to, over all rounds."""

    files: int = 10**9  # that the server had open with them, at the least
    sent: int = 0
    ended: int = 0


@dataclass
class _Trickled:
    """What the slow connections of one process came to."""

    open: int = 0
    sent: int = 0
    ended: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)


@contextmanager
def crowded(server: Server, crowd: Crowd) -> Iterator[None]:
    """The crowd, in a process of its own, while the context lasts."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_trickle_all, args=(server.port, there), daemon=True)
    process.start()
    here.recv()  # all have knocked
    while server.process().files < SLOW:
        time.sleep(0.1)
    try:
        yield
        crowd.files = min(crowd.files, server.process().files)
    finally:
        here.send("enough")
        sent, ended = here.recv()
        crowd.sent, crowd.ended = crowd.sent + sent, crowd.ended + ended
        process.join()


def _times(client: httpx2.Client, request: dict[str, Any]) -> list[float]:
    times = []
    for _ in range(_REQUESTS):
        since = time.perf_counter()
        client.post(CHAT, json=request).raise_for_status()
        times.append((time.perf_counter() - since) * 1000)
    return times


def _trickle_all(port: int, pipe: Connection) -> None:
    asyncio.run(_trickling(port, pipe))


async def _trickling(port: int, pipe: Connection) -> None:
    trickled = _Trickled()
    tasks = [asyncio.create_task(_trickle(port, number, trickled)) for number in range(SLOW)]
    while trickled.open < SLOW:
        await asyncio.sleep(0.05)
    pipe.send("there")
    await asyncio.to_thread(pipe.recv)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    pipe.send((trickled.sent, trickled.ended))


async def _trickle(port: int, number: int, trickled: _Trickled) -> None:
    """Half of a request, its second half byte by byte: of the headers or, every other one, of the body."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(_HEAD if number % 2 else _BEGUN)
            trickled.open += 1
            await asyncio.sleep(random.uniform(0, _BYTE_EVERY))  # they are not slow in step
            with suppress(ConnectionError):
                while not reader.at_eof():
                    await asyncio.sleep(_BYTE_EVERY)
                    writer.write(b"x")
                    await writer.drain()
                    trickled.sent += 1
            trickled.ended += 1
        finally:
            trickled.open -= 1
            writer.close()
