"""A small Hugging Face hub on 127.0.0.1 that can cut connections and send wrong bytes."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from backends.base import BackendError, RequestError
from router.models import EMBEDDED_FOLDER, HubId, pull

NAME = "org/Tiny-VL"
WEIGHTS = "model.safetensors"
COMMIT = "a" * 40
PIECE = 1 << 16
LARGE = 100_000  # bytes; files from here up are listed by sha256, as the hub does with its large ones


@dataclass
class Hub:
    """What is served, what goes wrong, and what was asked."""

    name: str
    files: dict[str, bytes]
    url: str = ""
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    cut: dict[str, int] = field(default_factory=dict)  # file -> how many of its downloads break at 30 %
    wrong: dict[str, int] = field(
        default_factory=dict
    )  # file -> how many of its downloads have a flipped bit
    pause: float = 0.0  # seconds between two pieces of a file
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range

    def downloads(self, file: str) -> list[str]:
        """The ranges that were asked of a file, "" for all of it."""
        return [
            range_ for method, path, range_ in self.requests if method == "GET" and path.endswith("/" + file)
        ]

    def listed(self, file: str) -> dict[str, Any]:
        data = self.files[file]
        entry: dict[str, Any] = {"size": len(data), "oid": git_hash(data)}
        if len(data) >= LARGE:
            entry["lfs"] = {
                "sha256": sha256(data),
                "oid": sha256(data),
                "size": len(data),
                "pointerSize": 130,
            }
        return entry


@cache
def checkpoint() -> dict[str, bytes]:
    """The files of the embedded model."""
    return {file.name: file.read_bytes() for file in EMBEDDED_FOLDER.iterdir() if file.is_file()}


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that serves the embedded model as NAME, and huggingface_hub set to it, with an empty cache."""
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    with serving(Hub(NAME, dict(checkpoint()))) as hub:
        connect(monkeypatch, hub.url, tmp_path)
        yield hub


def connect(monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: Path) -> None:
    """Set what huggingface_hub reads from the environment when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)


def refusal(error: type[RequestError] | type[BackendError], name: str = NAME) -> str:
    hub_id = HubId.parse(name)
    assert hub_id is not None
    with pytest.raises(error) as raised:
        pull(hub_id)
    assert raised.value.code == ("model_not_found" if error is RequestError else "model_invalid")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_GET(self) -> None:
            hub.requests.append((self.command, urlsplit(self.path).path, self.headers.get("Range", "")))
            answer(self, hub)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


def answer(request: BaseHTTPRequestHandler, hub: Hub) -> None:
    path = unquote(urlsplit(request.path).path)
    api = f"/api/models/{hub.name}/"
    if path.startswith(api):
        kind, _, revision = path.removeprefix(api).partition("/")
        commit = hub.branches.get(revision, revision if revision in hub.branches.values() else None)
        if commit is None:
            fail(request, "RevisionNotFound")
        else:
            send_json(request, model(hub, commit) if kind == "revision" else tree(hub))
    elif path.startswith(f"/{hub.name}/resolve/"):
        commit, _, file = path.removeprefix(f"/{hub.name}/resolve/").partition("/")
        send_file(request, hub, commit, file)
    else:
        fail(request, "RepoNotFound")


def model(hub: Hub, commit: str) -> dict[str, Any]:
    siblings = [
        {"rfilename": file, "size": entry["size"], "blobId": entry["oid"], "lfs": entry.get("lfs")}
        for file in hub.files
        for entry in [hub.listed(file)]
    ]
    return {"id": hub.name, "modelId": hub.name, "sha": commit, "siblings": siblings, "private": False}


def tree(hub: Hub) -> list[dict[str, Any]]:
    return [{"type": "file", "path": file, **hub.listed(file)} for file in hub.files]


def fail(request: BaseHTTPRequestHandler, code: str) -> None:
    request.send_response(404)
    request.send_header("X-Error-Code", code)
    request.send_header("Content-Length", "0")
    request.end_headers()


def send_json(request: BaseHTTPRequestHandler, value: object) -> None:
    body = json.dumps(value).encode()
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def send_file(request: BaseHTTPRequestHandler, hub: Hub, commit: str, file: str) -> None:
    if file not in hub.files:
        fail(request, "EntryNotFound")
        return
    data = hub.files[file]
    range_ = request.headers.get("Range", "")
    start = int(range_.removeprefix("bytes=").rstrip("-")) if range_ else 0
    request.send_response(206 if range_ else 200)
    etag = sha256(data) if len(data) >= LARGE else git_hash(data)
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if range_:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    for name, value in (headers | {"Content-Length": str(len(data) - start)}).items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        send_body(request, hub, file, data[start:])


def send_body(request: BaseHTTPRequestHandler, hub: Hub, file: str, data: bytes) -> None:
    if hub.wrong.get(file, 0) > 0:
        hub.wrong[file] -= 1
        data = data[:-1] + bytes([data[-1] ^ 1])
    if hub.cut.get(file, 0) > 0:
        hub.cut[file] -= 1
        request.wfile.write(data[: len(data) * 3 // 10])
        request.close_connection = True
        return
    with suppress(ConnectionError):  # whoever asked may leave
        for start in range(0, len(data), PIECE):
            request.wfile.write(data[start : start + PIECE])
            time.sleep(hub.pause)
