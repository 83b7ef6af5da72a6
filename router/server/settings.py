"""How the service is to behave; every time in seconds, every size in bytes unless its name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.images import InputLimits

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What ``hybrid serve`` is told; the defaults are safe on a machine that others can reach."""

    name: str | None = None  # under which the model is served; None: its own
    backend: str | None = None  # for requests that name none; None: the router picks
    policy: str = "auto"  # by which it picks, for the metrics
    bound: str = "127.0.0.1"  # the address that is listened on
    max_concurrency: int = 4  # answers computed at once; the onnx backend decodes them together
    max_queue: int = 8  # requests that may wait for them
    request_timeout: float = 600.0  # from the whole request to the last byte of its answer
    drain_timeout: float = 10.0  # for what runs when the service is told to end
    ping_interval: float = 15.0  # between two comments in a stream where nothing else is sent
    max_pixels: int | None = None  # images are shrunk to this; a request may ask for less
    images: InputLimits = field(default_factory=InputLimits)
    image_hosts: tuple[str, ...] = ()  # from which images may be fetched; "name" or "name:port"
    hosts: tuple[str, ...] = ()  # names by which the service is called, beside those of this machine
    origins: tuple[str, ...] = ()  # of web pages that may call it
    keys: tuple[bytes, ...] = ()  # sha256 of each; none: no key is needed
    max_body: int = 32 * MIB
    max_bodies: int = 256 * MIB  # of all bodies that are read or waiting together
    max_prepared: int = 512 * MIB  # of the images of all requests that wait, as the model reads them
    max_header: int = 64 * 1024
    receive_timeout: float = 30.0  # for a whole request to arrive
    stall_timeout: float = 30.0  # for a reader to take what was sent
    max_connections: int = 900  # below the 1024 files that a process may usually open
