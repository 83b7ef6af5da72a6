"""Who may call: by which name, and from which web pages.

A web page of anybody's can make a browser send requests to this machine. It cannot choose the Host header,
which names the page's own server even where that name was made to point here, nor the Origin header.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from backends.base import RequestError

OWN = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(\d{1,5}))?", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a server bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Callers:
    """What the headers of a request must say."""

    def __init__(self, bound: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        """``bound``: the address that is listened on; ``hosts``: other names; ``origins``: pages."""
        own = f"[{bound}]" if ":" in bound and not bound.startswith("[") else bound
        self._hosts = {name.lower() for name in (*OWN, own, *hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._by_number = bound in ("", "0.0.0.0", "::")  # listened on wherever this machine is reached

    def check_host(self, host: str | None) -> None:
        """RequestError ``forbidden_host``: the server is not called so."""
        found = _HOST.fullmatch((host or "").lower())
        if found is None or not (
            found[1] in self._hosts or found[0] in self._hosts or self._number(found[1])
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

    def _number(self, host: str) -> bool:
        # a name can be made to point anywhere; an address in numbers is what it says
        if not self._by_number:
            return False
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        return True
