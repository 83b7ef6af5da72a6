"""The wire: status, headers and body of what a server answers, which is a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from tests.record import masks
from tests.record.cli import PROCESS
from tests.record.http_cases import ANSWERED, ASK, CHAT, GUARDED, KEY, ORIGIN, RAW, REFUSED, ROUTE, Call
from tests.record.workspace import Workspace, environment, script

UNSTEADY = ("date", "x-request-id", "content-length")  # the last where figures stand in the body
PATIENCE = 60.0  # seconds, for a server to be ready


def record(space: Workspace) -> Iterator[tuple[str, list[str]]]:
    """Each case's name and lines."""
    with environment(HYBRID_SCRIPT=script()), _served(space) as (client, log):
        yield from _answers(client, (*ANSWERED, *REFUSED))
        for name, sent in RAW.items():
            yield f"http: {name}", _raw(client, sent)
        yield "http: /metrics", _metrics(client.get("/metrics"))
        yield "http: /openapi.json", _openapi(client.get("/openapi.json").json())
        yield from _page(client)
    yield "http: what is said of a server", masks.text(log.read_text("utf-8").splitlines()[0], space.names)
    failing = {"HYBRID_SCRIPT": script(fault="raise", fault_at=4), "HYBRID_API_KEY": KEY}
    options = ("--backend", "scripted", "--served-model-name", "mine", "--cors-origins", ORIGIN, "--log-json")
    limits = ("--max-images", "1", "--max-image-bytes", "2000", "--ctx-size", "512")
    with environment(**failing), _served(space, *options, *limits) as (client, log):
        for name, told in _answers(client, GUARDED):
            yield f"{name}, where a key is needed", told
    yield "http: the log", _logged(log, space)
    hanging = environment(HYBRID_SCRIPT=script(fault="hang", fault_at=2))
    alone = ("--backend", "scripted", "--max-concurrency", "1", "--max-queue", "0", "--drain-timeout", "0")
    with hanging, _served(space, *alone) as (client, _), _computing(client):
        yield "http: the queue is full", list(_told(client.post(CHAT, json=ASK)))


@contextmanager
def _served(space: Workspace, *options: str) -> Iterator[tuple[httpx2.Client, Path]]:
    """A client of a server that is ready, and its log."""
    log = space.folder / "log"
    with log.open("w") as written, environment(HYBRID_MODEL="scenes"):
        process = subprocess.Popen([*PROCESS, "serve", "--port", "0", *options], stderr=written)
    try:
        found = _until(process, lambda: re.match(r".*serving .* on (http://\S+)\n", log.read_text("utf-8")))
        with httpx2.Client(base_url=found[1], timeout=PATIENCE) as client:
            _until(process, lambda: client.get("/health").status_code == 200)
            yield client, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def _until(process: "subprocess.Popen[bytes]", condition: Any) -> Any:
    start = time.monotonic()
    while not (found := condition()):
        assert process.poll() is None, "the server ended"
        assert time.monotonic() - start < PATIENCE, "the server did not begin"
        time.sleep(0.02)
    return found


def _idle(client: httpx2.Client) -> None:
    """Wait until the answer before has ended: who gives the next depends on what is answered meanwhile."""
    start = time.monotonic()
    while "together with others" in client.post(ROUTE, json=ASK).text:
        assert time.monotonic() - start < PATIENCE, "an answer does not end"
        time.sleep(0.005)


@contextmanager
def _computing(client: httpx2.Client) -> Iterator[None]:
    """While an answer is computed that does not end."""
    with client.stream("POST", CHAT, json={**ASK, "stream": True}) as response:
        lines = response.iter_lines()  # held: dropping it closes the connection, and the answer ends with it
        next(lines)
        yield


def _answers(client: httpx2.Client, calls: Sequence[Call]) -> Iterator[tuple[str, list[str]]]:
    for call in calls:
        _idle(client)
        raw = {"content": call.body} if isinstance(call.body, bytes) else {"json": call.body}
        given = {} if call.body is None else raw
        response = client.request(call.method, call.path, headers=call.headers, **given)
        yield f"http: {call.name}", [f"{call.method} {call.path}", *_told(response)]


def _told(response: httpx2.Response) -> Iterator[str]:
    yield str(response.status_code)
    for name, value in sorted(response.headers.items()):
        if name == "retry-after":  # seconds, by what answers took
            value = masks.MASK
        if name not in UNSTEADY or (name, value) == ("x-request-id", "abc-1.2_3"):
            yield f"{name}: {value}"
    yield from _body(response.headers.get("content-type", ""), response.text)


def _body(kind: str, text: str) -> Iterator[str]:
    if kind == "text/event-stream":
        for event in text.split("\n\n"):
            yield _event(event)
    elif kind == "application/json" and text:
        yield from masks.json_lines(json.loads(text))
    elif text:
        yield text


def _event(event: str) -> str:
    if not event.startswith("data: {"):
        return event
    told = masks.value(json.loads(event.removeprefix("data: ")))
    return "data: " + json.dumps(told, ensure_ascii=False)


def _raw(client: httpx2.Client, sent: bytes) -> list[str]:
    """The answer to bytes that no client would send: its status, and the body."""
    with socket.create_connection(("127.0.0.1", client.base_url.port), PATIENCE) as connection:
        with suppress(ConnectionError):  # it may answer, and close, before it has all
            connection.sendall(sent)
        data = b""
        with suppress(ConnectionError):
            while b"}}" not in data and (piece := connection.recv(65536)):
                data += piece
    head, _, body = data.decode().partition("\r\n\r\n")
    return [" ".join(head.split()[:2]), body]


def _metrics(response: httpx2.Response) -> list[str]:
    """Their types, and the labels of each."""
    lines = response.text.splitlines()
    types = [line for line in lines if line.startswith("# ")]
    labelled = {re.sub(r'="[^"]*"', "", line.rpartition(" ")[0]) for line in lines if line[:1] != "#"}
    return [response.headers["content-type"], *types, *sorted(labelled)]


def _openapi(document: dict[str, Any]) -> list[str]:
    """A line for each address and method, and for each schema."""
    document["info"].pop("version")
    lines = [
        f"{name}: {json.dumps(document[name])}" for name in document if name not in ("paths", "components")
    ]
    for path, methods in document["paths"].items():
        lines += [f"{method} {path}: {json.dumps(told, sort_keys=True)}" for method, told in methods.items()]
    for kind, parts in sorted(document.get("components", {}).items()):
        lines += [f"{kind} {name}: {json.dumps(parts[name], sort_keys=True)}" for name in sorted(parts)]
    # newer versions of Python call it otherwise
    return [line.replace("Request Entity Too Large", "Content Too Large") for line in lines]


def _page(client: httpx2.Client) -> Iterator[tuple[str, list[str]]]:
    """The page and every file that it names, by their headers; an etag is a digest of the content."""
    start = client.get("/")
    named = re.findall(r'(?:src|href)="(/?page/[^"]+)"', start.text)
    for path in ("/", *sorted({f"/{name.lstrip('/')}" for name in named})):
        response = client.get(path)
        headers = sorted((name, told) for name, told in response.headers.items() if name not in UNSTEADY)
        yield f"http: GET {path}", [str(response.status_code), *(": ".join(header) for header in headers)]


def _logged(log: Path, space: Workspace) -> list[str]:
    """The different lines of the log, without times, ids and sizes."""
    told = {json.dumps(masks.value(json.loads(line))) for line in _json_lines(log)}
    return sorted(one for line in told for one in masks.text(line, space.names))


def _json_lines(log: Path) -> list[str]:
    return [line for line in log.read_text("utf-8").split(os.linesep) if line.startswith("{")]
