"""API keys: kept as hashes, and compared in a time that tells nothing."""

from __future__ import annotations

import hmac
from hashlib import sha256

from backends.base import RequestError


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
    found = sha256(given.strip()).digest()
    # each is compared, and none is left out after a match
    matches = [hmac.compare_digest(found, key) for key in keys]
    if scheme.lower() != b"bearer" or not any(matches):
        raise RequestError(
            "a valid API key is needed: send it as 'Authorization: Bearer KEY'", code="invalid_api_key"
        )
