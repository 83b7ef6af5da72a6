"""Images from elsewhere: only from hosts that were allowed, and never from this machine's own network.

A host is looked up once, each of its addresses must be one of the public Internet, and the first of them is
connected to: a name that points elsewhere a moment later changes nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from backends.base import RequestError
from router.api.messages import ImageSource
from router.server.cancel import in_thread
from router.server.settings import Settings

SECONDS = 10.0  # for an image to arrive, from the name to the last byte
_PORTS = {"http": 80, "https": 443}
_TRANSLATED = [
    ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Address:
    """Where an image is to be had."""

    scheme: str
    host: str
    port: int
    target: str  # path and query
    param: str  # where in the body it stands


async def fetch_all(sources: tuple[ImageSource, ...], settings: Settings) -> Mapping[ImageSource, bytes]:
    """The images that are addresses. RequestError: one of them cannot be had."""
    wanted = {source: address(source, settings.image_hosts) for source in sources if source.url is not None}
    tasks = [fetch(found, settings.images.max_bytes) for found in wanted.values()]
    return dict(zip(wanted, await asyncio.gather(*tasks), strict=True))


def address(source: ImageSource, allowed: tuple[str, ...]) -> Address:
    """What a URL means. RequestError ``unsupported_image_url``: it is none, or its host was not allowed."""
    try:
        parts = urlsplit(source.url or "")
        port = parts.port or _PORTS[parts.scheme]
        host = (parts.hostname or "").rstrip(".").encode("idna").decode("ascii")
    except (ValueError, KeyError, UnicodeError):
        raise _refused("the image's address is not a URL", source.param) from None
    usual = port == _PORTS[parts.scheme]
    if parts.username is not None or not (f"{host}:{port}" in allowed or (usual and host in allowed)):
        told = f"only from {', '.join(allowed)}" if allowed else "from nowhere"
        raise _refused(
            f"this server fetches images {told}; send a data URI (--allowed-image-hosts allows a host)",
            source.param,
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise _refused("the image's address is not a URL", source.param)
    return Address(parts.scheme, host, port, target, source.param)


def is_public(found: IPAddress) -> bool:
    """Whether an address is one of the public Internet, by itself and not through a translation."""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(found.ipv4_mapped)
        if any(found in network for network in _TRANSLATED):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


async def fetch(
    wanted: Address, max_bytes: int, public: Callable[[IPAddress], bool] = is_public, seconds: float = SECONDS
) -> bytes:
    """The bytes at ``wanted``. RequestError: they cannot be had, are too many, or come too slowly."""
    try:
        async with asyncio.timeout(seconds):
            number = await _look_up(wanted, public)
            context = ssl.create_default_context() if wanted.scheme == "https" else None
            name = wanted.host if context is not None else None
            reader, writer = await asyncio.open_connection(
                str(number), wanted.port, ssl=context, server_hostname=name
            )
            try:
                return await _read(wanted, reader, writer, max_bytes)
            finally:
                writer.close()
                with suppress(OSError, ssl.SSLError):
                    await writer.wait_closed()
    except TimeoutError:
        raise _failed(f"the image did not arrive within {seconds:g} s", wanted) from None
    except (OSError, h11.RemoteProtocolError):
        raise _failed("the image cannot be fetched from its address", wanted) from None


async def _look_up(wanted: Address, public: Callable[[IPAddress], bool]) -> IPAddress:
    found = await in_thread(lambda: socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM))
    numbers = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not numbers or not all(map(public, numbers)):
        raise _failed("the image's host is not on the public Internet", wanted)
    return numbers[0]


async def _read(
    wanted: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_bytes: int
) -> bytes:
    http = h11.Connection(h11.CLIENT)
    usual = wanted.port == _PORTS[wanted.scheme]
    headers = [
        ("host", wanted.host if usual else f"{wanted.host}:{wanted.port}"),
        ("accept", "image/png, image/jpeg, image/webp, image/gif, image/bmp"),
        ("accept-encoding", "identity"),
        ("user-agent", "hybrid"),
        ("connection", "close"),
    ]
    writer.write(http.send(h11.Request(method="GET", target=wanted.target, headers=headers)) or b"")
    writer.write(http.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    data = bytearray()
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                http.receive_data(await reader.read(64 * 1024))
            case h11.Response(status_code=status) if status != 200:
                raise _failed(f"the image's host answers with status {status}", wanted)
            case h11.Data(data=piece):
                data += piece
                if len(data) > max_bytes:
                    raise RequestError(
                        f"the image has more than {max_bytes:,} bytes: make it smaller",
                        code="image_too_large",
                        param=wanted.param,
                    )
            case h11.EndOfMessage():
                return bytes(data)


def _refused(message: str, param: str) -> RequestError:
    return RequestError(message, code="unsupported_image_url", param=param)


def _failed(message: str, wanted: Address) -> RequestError:
    return RequestError(message, code="image_fetch_failed", param=wanted.param)
