"""Images from elsewhere: not unless a host was allowed, and then only what a public host gives at once."""

import asyncio
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from backends.base import RequestError
from benchmarks.load.image_files import encoded, photo
from router.api.messages import ImageSource
from router.server import fetch as fetching
from router.server.fetch import address, fetch, is_public

IMAGE = encoded(photo(), "PNG")
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(IMAGE), IMAGE)


@contextmanager
def web(answer: Callable[[socket.socket], None], reads: bool = True) -> Iterator[tuple[int, list[bytes]]]:
    """A server on this machine that answers as told; its port, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    if reads:
                        asked.append(connection.recv(4096))
                    with suppress(OSError):
                        answer(connection)

        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)


def sending(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def get(port: int, *, most: int = 10**6, seconds: float = 5.0, public: Any = lambda _: True) -> bytes:
    wanted = address(ImageSource("p", None, f"http://localhost:{port}/a.png?b=c"), (f"localhost:{port}",))
    return asyncio.run(fetch(wanted, most, public, seconds))


def refused(work: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        work()
    assert caught.value.param == "p"
    return caught.value


def test_an_image_comes_from_a_host_that_was_allowed() -> None:
    with web(sending(GOOD)) as (port, asked):
        assert get(port) == IMAGE
    head = asked[0].decode()
    assert head.startswith("GET /a.png?b=c HTTP/1.1\r\n")
    assert f"host: localhost:{port}\r\n" in head.lower()
    assert "authorization" not in head.lower()


def test_a_chunked_answer_and_one_without_a_length_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(IMAGE),
        IMAGE,
    )
    for data in (chunked, b"HTTP/1.1 200 OK\r\n\r\n" + IMAGE, b"HTTP/1.0 200 OK\r\n\r\n" + IMAGE):
        with web(sending(data)) as (port, _):
            assert get(port) == IMAGE


@pytest.mark.parametrize(
    "status", [b"301 Moved", b"302 Found", b"404 Not Found", b"500 Oops", b"204 No Content"]
)
def test_a_redirect_is_not_followed_and_an_error_is_told(status: bytes) -> None:
    answer = b"HTTP/1.1 %s\r\nLocation: http://localhost:1/x\r\nContent-Length: 0\r\n\r\n" % status
    with web(sending(answer)) as (port, asked):
        error = refused(lambda: get(port))
        assert error.code == "image_fetch_failed"
        assert status[:3].decode() in str(error)
        assert len(asked) == 1


def dribble(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"x")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


@pytest.mark.parametrize("answer", [dribble, lambda connection: time.sleep(3)], ids=["dribbles", "silent"])
def test_a_host_that_takes_its_time_is_given_up(answer: Any) -> None:
    with web(answer) as (port, _):
        assert refused(lambda: get(port, most=100_000, seconds=1)).code == "image_fetch_failed"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (endless, "image_too_large"),
        (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"), "image_fetch_failed"),
        (
            sending(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n" + bytes(200_000)),
            "image_too_large",
        ),
        (sending(b"nonsense\r\n\r\n"), "image_fetch_failed"),
        (sending(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000), "image_fetch_failed"),
        (sending(b""), "image_fetch_failed"),
    ],
    ids=["endless", "cut", "too large", "not http", "huge headers", "nothing"],
)
def test_a_hostile_host_costs_little(answer: Any, code: str) -> None:
    with web(answer) as (port, _):
        assert refused(lambda: get(port, most=100_000, seconds=30)).code == code


def test_a_port_where_nobody_listens_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening: nobody else is given it, and a connection is refused
        assert refused(lambda: get(unused.getsockname()[1])).code == "image_fetch_failed"


def test_a_name_that_points_inside_is_not_connected_to() -> None:
    with web(sending(GOOD)) as (port, asked):
        assert "public" in str(refused(lambda: get(port, public=is_public)))
        assert asked == []


def test_the_name_is_looked_up_once_and_all_its_addresses_must_be_public(monkeypatch) -> None:
    lookups = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        lookups.append(host)
        numbers = ["127.0.0.1", "127.0.0.2"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, port)) for number in numbers]

    monkeypatch.setattr(fetching.socket, "getaddrinfo", look_up)
    with web(sending(GOOD)) as (port, asked):
        first_only = lambda number: str(number) == "127.0.0.1"  # noqa: E731
        assert refused(lambda: get(port, public=first_only)).code == "image_fetch_failed"
        assert asked == []
        assert get(port) == IMAGE
    assert lookups == ["localhost", "localhost"]


INSIDE = """127.0.0.1 10.0.0.1 192.168.1.1 172.16.0.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 239.1.1.1
240.0.0.1 255.255.255.255 192.0.2.1 ::1 :: fe80::1 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2001:0:1::1 2001:db8::1"""


@pytest.mark.parametrize("number", INSIDE.split())
def test_an_address_of_this_network_is_not_public(number: str) -> None:
    assert not is_public(ipaddress.ip_address(number))


def test_addresses_of_the_internet_are_public() -> None:
    for number in ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"):
        assert is_public(ipaddress.ip_address(number))


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.png",
        "http://images.example.evil.example/a.png",
        "http://images.example@evil.example/a.png",
        "http://user:pass@images.example/a.png",
        "http://evil.example#images.example/",
        "http://evil.example\\@images.example/",
        "http://images.example:8080/a.png",
        "http://images.example:99999/a.png",
        "http://127.0.0.1/a.png",
        "http://[::1]/a.png",
        "http://2130706433/a.png",
        "http:///a.png",
        "http://",
        "https://images.example/a b",
        "https://images.example/a\r\nX: y",
        "https://images.example/\xe9.png",
    ],
)
def test_only_the_hosts_that_were_allowed_are_meant(url: str) -> None:
    error = refused(lambda: address(ImageSource("p", None, url), ("images.example",)))
    assert error.code == "unsupported_image_url"
    assert "evil" not in str(error)


def test_an_allowed_host_is_told_by_name_and_port() -> None:
    found = address(ImageSource("p", None, "HTTPS://Images.Example./a.png"), ("images.example",))
    assert (found.scheme, found.host, found.port, found.target) == (
        "https",
        "images.example",
        443,
        "/a.png",
    )
    found = address(ImageSource("p", None, "http://images.example:81"), ("images.example:81",))
    assert (found.port, found.target) == (81, "/")


CERTIFICATE = Path(__file__).parent / "images_test.pem"  # of images.test, signed by itself; with its key


@contextmanager
def secure_web() -> Iterator[tuple[int, list[str | None], list[bytes]]]:
    """A server on this machine that is images.test; its port, the names it was called, what it was asked."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda connection, name, _: names.append(name)
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            asked.append(secure.recv(4096))
            secure.sendall(GOOD)

    with web(answer, reads=False) as (port, _):
        yield port, names, asked


def get_securely(host: str, port: int) -> bytes:
    wanted = address(ImageSource("p", None, f"https://{host}:{port}/a.png"), (f"{host}:{port}",))
    return asyncio.run(fetch(wanted, 10**6, lambda _: True))


def test_a_host_that_is_dialled_by_its_address_proves_its_name(monkeypatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: found)
    with secure_web() as (port, names, asked):
        assert refused(lambda: get_securely("images.test", port)).code == "image_fetch_failed", "not trusted"
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        assert get_securely("images.test", port) == IMAGE
        assert names == ["images.test"] * 2
        assert refused(lambda: get_securely("other.test", port)).code == "image_fetch_failed", "another name"
        assert names[2:] == ["other.test"]
    (request,) = asked
    assert f"host: images.test:{port}\r\n" in request.decode().lower()


def test_the_environment_names_no_proxy_for_images(monkeypatch) -> None:
    with web(sending(GOOD)) as (port, _), web(sending(GOOD)) as (proxy, asked):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        assert get(port) == IMAGE
        assert asked == []
        assert httpx2.get(f"http://images.test:{port}/").content == IMAGE
        assert len(asked) == 1, "the control: others would ask the proxy"


@pytest.mark.parametrize("target", ["/a%20b.png", "/a|b.png?x={y}", "/%2e%2e/a.png", "//a.png"])
def test_a_path_is_asked_for_as_it_stands(target: str) -> None:
    with web(sending(GOOD)) as (port, asked):
        wanted = address(ImageSource("p", None, f"http://localhost:{port}{target}"), (f"localhost:{port}",))
        assert asyncio.run(fetch(wanted, 10**6, lambda _: True)) == IMAGE
    assert asked[0].startswith(b"GET " + target.encode() + b" HTTP/1.1\r\n")


def test_an_image_from_an_allowed_host_is_answered_about(start, monkeypatch) -> None:
    def request(port: int) -> dict[str, Any]:
        url = {"url": f"http://localhost:{port}/a.png"}
        return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}

    with web(sending(GOOD)) as (port, asked):
        served = start(image_hosts=(f"localhost:{port}",))
        refusal = served.ask(**request(port))
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (400, "image_fetch_failed")
        assert asked == []
        monkeypatch.setattr(fetching.fetch, "__defaults__", (lambda _: True, 5.0))
        response = served.ask(**request(port))
        assert response.status_code == 200
        assert response.json()["usage"]["prompt_tokens_details"]["image_tokens"] > 0
        assert served.ask("/v1/route", **request(port)).json()["image_tokens"] > 0
        assert len(asked) == 2
