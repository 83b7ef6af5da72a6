"""Images from elsewhere: only from hosts that were allowed, and never from this machine's own network.

A host is looked up once, each of its addresses must be one of the public Internet, and the first of them is
connected to: a name that points elsewhere a moment later changes nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

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

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the usual one."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"


async def fetch_all(sources: tuple[ImageSource, ...], settings: Settings) -> Mapping[ImageSource, bytes]:
    """The images that are addresses. RequestError: one of them cannot be had."""
    wanted = {source: address(source, settings.image_hosts) for source in sources if source.url is not None}
    tasks = [fetch(where, settings.images.max_bytes) for where in wanted.values()]
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
        hosts = f"only from {', '.join(allowed)}" if allowed else "from nowhere"
        raise _refused(
            f"this server fetches images {hosts}; send a data URI (--allowed-image-hosts allows a host)",
            source.param,
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise _refused("the image's address is not a URL", source.param)
    return Address(parts.scheme, host, port, target, source.param)


def is_public(number: IPAddress) -> bool:
    """Whether an address is one of the public Internet, by itself and not through a translation."""
    if isinstance(number, ipaddress.IPv6Address):
        if number.ipv4_mapped is not None:
            return is_public(number.ipv4_mapped)
        if any(number in network for network in _TRANSLATED):
            return False
    return number.is_global and not number.is_multicast and not number.is_reserved


async def fetch(
    wanted: Address, max_bytes: int, public: Callable[[IPAddress], bool] = is_public, seconds: float = SECONDS
) -> bytes:
    """The bytes at ``wanted``. RequestError: they cannot be had, are too many, or come too slowly."""
    try:
        async with asyncio.timeout(seconds):
            number = await _look_up(wanted, public)
            async with _response(wanted, number) as response:
                return await _read(wanted, response, max_bytes)
    except TimeoutError:
        raise _failed(f"the image did not arrive within {seconds:g} s", wanted) from None
    except (OSError, httpx2.HTTPError):
        raise _failed("the image cannot be fetched from its address", wanted) from None


async def _look_up(wanted: Address, public: Callable[[IPAddress], bool]) -> IPAddress:
    entries = await in_thread(lambda: socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM))
    numbers = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]
    if not numbers or not all(map(public, numbers)):
        raise _failed("the image's host is not on the public Internet", wanted)
    return numbers[0]


@asynccontextmanager
async def _response(wanted: Address, number: IPAddress) -> AsyncGenerator[httpx2.Response, None]:
    """The answer of ``number``, which is spoken to, and proves itself, as the host that is wanted."""
    headers = {
        "host": wanted.authority,
        "accept": "image/png, image/jpeg, image/webp, image/gif, image/bmp",
        "accept-encoding": "identity",
        "user-agent": "hybrid",
        "connection": "close",
    }
    extensions = {"sni_hostname": wanted.host, "target": wanted.target.encode("ascii")}
    url = httpx2.URL(scheme=wanted.scheme, host=str(number), port=wanted.port)
    verify = ssl.create_default_context() if wanted.scheme == "https" else False  # no TLS, no certificate
    # no proxy and no netrc of the environment: the address that was checked is the one that is dialled
    async with (
        httpx2.AsyncClient(verify=verify, trust_env=False, timeout=None) as client,
        client.stream("GET", url, headers=headers, extensions=extensions, follow_redirects=False) as response,
    ):
        yield response


async def _read(wanted: Address, response: httpx2.Response, max_bytes: int) -> bytes:
    if response.status_code != 200:
        raise _failed(f"the image's host answers with status {response.status_code}", wanted)
    data = bytearray()
    async for piece in response.aiter_raw():
        data += piece
        if len(data) > max_bytes:
            raise RequestError(
                f"the image has more than {max_bytes:,} bytes: make it smaller",
                code="image_too_large",
                param=wanted.param,
            )
    return bytes(data)


def _refused(message: str, param: str) -> RequestError:
    return RequestError(message, code="unsupported_image_url", param=param)


def _failed(message: str, wanted: Address) -> RequestError:
    return RequestError(message, code="image_fetch_failed", param=wanted.param)
