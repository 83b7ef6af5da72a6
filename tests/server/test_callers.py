"""Who may call: names, web pages and keys."""

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from backends.base import RequestError
from router.server.access import AccessPolicy, check_key, digest, is_loopback, parse_keys
from router.server.middleware import PUBLIC
from tests.server.conftest import ASK, Served, read_all

KEY = "sk-0123456789"


def asked(served: Served, host: str | bytes, target: bytes = b"/livez", *headers: str) -> bytes:
    """The answer to a request with headers of one's own."""
    name = host if isinstance(host, bytes) else host.encode("latin-1")
    lines = [b"GET " + target + b" HTTP/1.1", b"Host: " + name, b"Connection: close"]
    sent = b"\r\n".join([*lines, *(header.encode("latin-1") for header in headers), b"", b""])
    with served.connected(sent) as connection:
        return read_all(connection)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("allowed.example", 200),
        ("allowed.example:99", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example:8000", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0", 403),
        ("127.0.0.1.nip.io", 403),
        ("x.local", 403),
        ("localhost:x", 403),
        ("localhost@evil.example", 403),
        ("a/health?x=", 403),
        ("localhost/health?", 403),
        ("localhost.", 403),
        ("", 403),
        ("[::1", 403),
        ("[::1]x", 403),
    ],
)
def test_only_known_names_are_answered(start, host: str, expected: int) -> None:
    served = start(hosts=("allowed.example",))
    answer = asked(served, host)
    assert status(answer) == expected
    if expected == 403:
        assert b'"code":"forbidden_host"' in answer


def test_a_server_bound_everywhere_answers_to_numbers_too() -> None:
    for host in ("10.0.0.1", "10.0.0.1:8000", "[2001:db8::1]", "localhost"):
        AccessPolicy("0.0.0.0").check_host(host)
    AccessPolicy("192.168.1.5").check_host("192.168.1.5:8000")
    AccessPolicy("::1").check_host("[::1]")
    for bound, host in (
        ("0.0.0.0", "evil.example"),
        ("192.168.1.5", "192.168.1.6"),
        ("127.0.0.1", "10.0.0.1"),
    ):
        with pytest.raises(RequestError):
            AccessPolicy(bound).check_host(host)


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]")))
    assert not any(
        map(is_loopback, ("0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.evil.example"))
    )


PAGE = "https://app.example"


@pytest.mark.parametrize("path", ["/health", "/livez", "/v1/models", "/metrics", "/openapi.json"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "https://localhost.evil"]
)
def test_a_web_page_from_elsewhere_gets_nothing(served: Served, path: str, origin: str) -> None:
    response = served.client.get(path, headers={"origin": origin})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "forbidden_origin"
    assert not any(name.startswith("access-control") for name in response.headers)


def test_the_servers_own_pages_and_programs_are_answered(served: Served) -> None:
    own = str(served.client.base_url).rstrip("/")
    assert served.client.get("/health", headers={"origin": own}).status_code == 200
    assert served.client.get("/health").status_code == 200
    assert "access-control-allow-origin" not in served.client.get("/health").headers


def test_a_page_that_was_allowed_may_ask(start) -> None:
    served = start(origins=(PAGE,), keys=parse_keys(KEY))
    preflight = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    asked = served.client.options("/v1/chat/completions", headers=preflight)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in asked.headers
    headers = {"origin": PAGE, "authorization": f"Bearer {KEY}"}
    response = served.client.post("/v1/chat/completions", json=ASK, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["vary"] == "origin"
    assert "x-hybrid-backend" in response.headers["access-control-expose-headers"]
    refused = served.client.post("/v1/chat/completions", json=ASK, headers={"origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE, "a page may read why"
    other = served.client.options("/v1/models", headers={**preflight, "origin": "https://evil.example"})
    assert other.status_code == 403


def test_any_page_may_ask_if_that_was_wanted(start) -> None:
    served = start(origins=("*",))
    response = served.client.get("/v1/models", headers={"origin": "https://any.example"})
    assert response.headers["access-control-allow-origin"] == "https://any.example"


def routes(served: Served) -> list[tuple[str, str]]:
    """Every method and path that the application has."""
    found = []
    for context in iter_route_contexts(served.server.config.app.routes):
        path = getattr(context, "path", None) or context.route.path
        for method in getattr(context.route, "methods", None) or {"GET"}:
            found.append((method, path.replace("{model:path}", "scenes")))
    return found


@pytest.fixture(scope="module")
def locked(words: None):
    from tests.server.conftest import serving

    with serving(keys=parse_keys(f"{KEY}\n# a comment\n\nother-key")) as served:
        yield served


def test_every_route_wants_a_key_except_those_for_health(locked: Served) -> None:
    found = routes(locked)
    assert len({path for _, path in found}) >= 10
    assert {"/v1/chat/completions", "/metrics", "/openapi.json"} <= {path for _, path in found}
    for method, path in found:
        response = locked.client.request(method, path)
        if path in PUBLIC:
            assert response.status_code == 200, path
        else:
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert response.json()["error"]["code"] == "invalid_api_key"


WRONG: list[Any] = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    f"Basic {KEY}",
    f"Bearer {KEY}x",
    f"Bearer {KEY[:-1]}",
    KEY,
    "Bearer \xe9\xff",
    f"Bearer {KEY} {KEY}",
]


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_key_is_refused(locked: Served, said: str) -> None:
    answer = asked(locked, "localhost", b"/v1/models", f"Authorization: {said}")
    assert status(answer) == 401


def test_each_of_the_keys_opens(locked: Served) -> None:
    for said in (f"Bearer {KEY}", "Bearer other-key", f"bearer {KEY}", f"Bearer  {KEY} "):
        assert status(asked(locked, "localhost", b"/v1/models", f"Authorization: {said}")) == 200


@pytest.mark.parametrize(
    "target",
    [
        b"//v1/models",
        b"/%761/models",
        b"/v1/models?x=/health",
        b"/v1/models;/health",
        b"http://localhost/v1/models",
        b"http://localhost/health",
        b"/health/../v1/models",
        b"/health%2f..%2fv1%2fmodels",
        b"/health/",
        b"/HEALTH",
        b"/v1/models#/health",
        b"/nowhere",
        b"*",
    ],
)
def test_no_spelling_of_a_path_goes_past_the_key(locked: Served, target: bytes) -> None:
    assert status(asked(locked, "localhost", target)) in (400, 401)


def test_keys_are_read_one_on_each_line() -> None:
    assert parse_keys(" a \n#b\n\nc") == (digest("a"), digest("c"))
    for text in ("", "\n# only this\n", "with blank", "k\xe9y", "tab\tkey"):
        with pytest.raises(RequestError):
            parse_keys(text)


def test_without_keys_nothing_is_asked_for_and_with_them_all_are_compared(monkeypatch) -> None:
    check_key(None, ())
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(b) or a == b)
    keys = parse_keys("a\nb\nc")
    check_key(b"Bearer a", keys)
    assert compared == list(keys), "where it matches tells nothing"
