"""Who may call: by which name, from which web pages, and with which key.

A web page of anybody's can make a browser send requests to this machine. It cannot choose the Host header,
which names the page's own server even where that name was made to point here, nor the Origin header.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from hashlib import sha256

from backends.base import RequestError

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(\d{1,5}))?", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a server bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AccessPolicy:
    """What the headers of a request must say."""

    def __init__(self, bound: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        """``bound``: the address that is listened on; ``hosts``: other names; ``origins``: pages."""
        bound_name = f"[{bound}]" if ":" in bound and not bound.startswith("[") else bound
        self._hosts = {name.lower() for name in (*LOCAL_HOSTS, bound_name, *hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._by_number = bound in ("", "0.0.0.0", "::")  # listened on wherever this machine is reached

    def check_host(self, host: str | None) -> None:
        """RequestError ``forbidden_host``: the server is not called so."""
        match = _HOST.fullmatch((host or "").lower())
        if match is None or not (
            match[1] in self._hosts or match[0] in self._hosts or self._is_number(match[1])
        ):
            raise RequestError(
                "this server does not answer to that Host; start it with --allowed-hosts to add one",
                code="forbidden_host",
            )

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """RequestError ``forbidden_origin``: a web page asks that may not."""
        if origin is None or self.allows(origin):
            return
        if host is not None and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return
        raise RequestError(
            "this server does not answer to that web page; start it with --cors-origins to allow one",
            code="forbidden_origin",
        )

    def allows(self, origin: str) -> bool:
        """Whether a page from elsewhere was allowed to ask."""
        return "*" in self._origins or origin.lower() in self._origins

    def _is_number(self, host: str) -> bool:
        # a name can be made to point anywhere; an address in numbers is what it says
        if not self._by_number:
            return False
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        return True


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return sha256(key.encode("utf-8")).digest()


def parse_keys(text: str) -> tuple[bytes, ...]:
    """The digests of the keys in ``text``, one on each line; lines that are empty or begin with # are not.

    RequestError: a key has characters that no header can carry, or there is none.
    """
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise RequestError("there is no key in it; give at least one", param="api-key")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise RequestError("a key must be of printable ASCII characters, without blanks", param="api-key")
    return tuple(digest(key) for key in keys)


def check_key(authorization: bytes | None, keys: tuple[bytes, ...]) -> None:
    """RequestError ``invalid_api_key``: the header does not carry one of the keys, if there are any."""
    if not keys:
        return
    scheme, _, given = (authorization or b"").partition(b" ")
    given_digest = sha256(given.strip()).digest()
    # each is compared, and none is left out after a match
    matches = [hmac.compare_digest(given_digest, key) for key in keys]
    if scheme.lower() != b"bearer" or not any(matches):
        raise RequestError(
            "a valid API key is needed: send it as 'Authorization: Bearer KEY'", code="invalid_api_key"
        )
