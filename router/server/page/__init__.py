"""The page at ``/``: a chat in the browser, served as files that load nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "png": "image/png",
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # kept by the browser, and used when the server says that it is the same
}


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    data: bytes
    kind: str

    @property
    def etag(self) -> str:
        """The same for the same content."""
        return f'"{sha256(self.data).hexdigest()[:32]}"'


def _read(file: Traversable) -> File:
    return File(file.read_bytes(), _TYPES[file.name.rpartition(".")[2]])


def _files() -> dict[str, File]:
    """Every file of the page under its address."""
    package = files("router")
    page = {file.name: file for file in (package / "server" / "page").iterdir()}
    images = {f"samples/{file.name}": file for file in (package / "scenes" / "samples").iterdir()}
    parts = {name: file for name, file in {**page, **images}.items() if name.rpartition(".")[2] in _TYPES}
    start = parts.pop("index.html")
    return {"/": _read(start), **{f"/page/{name}": _read(file) for name, file in sorted(parts.items())}}


FILES = _files()


def routes() -> APIRouter:
    """A route for each file; the page is no part of the interface that the OpenAPI document describes."""
    router = APIRouter(include_in_schema=False)
    for address, file in FILES.items():
        router.add_api_route(address, _answer(file), response_class=Response)
    return router


def _answer(file: File) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        headers = {**_HEADERS, "etag": file.etag}
        if _is_known(file.etag, request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(file.data, headers=headers, media_type=file.kind)

    return answer


def _is_known(etag: str, known: str) -> bool:
    """Whether a browser has the content already; a proxy may have marked the tag as weak."""
    return etag in (tag.strip().removeprefix("W/") for tag in known.split(","))
