"""What the page is made of: small files that load nothing from elsewhere, and say so."""

import re
from collections.abc import Callable

import httpx2
import pytest

from router.server.access import digest
from router.server.page import FILES
from tests.server.conftest import Served, start, words

__all__ = ["start", "words"]  # fixtures

TEXTS = {address: file.data.decode() for address, file in FILES.items() if not address.endswith(".png")}
SCRIPTS = {address: text for address, text in TEXTS.items() if address.endswith(".js")}
ELSEWHERE = re.compile(r"(?<![\w:])(?:\w+:)?//\w[^\s\"'<>)]*")
SVG = "http://www.w3.org/2000/svg"  # the name of a language, which nobody loads


def elsewhere(text: str) -> list[str]:
    return [found for found in ELSEWHERE.findall(text) if found != SVG]


@pytest.mark.parametrize("address", TEXTS)
def test_nothing_is_loaded_from_elsewhere(address: str) -> None:
    assert elsewhere(TEXTS[address]) == []


@pytest.mark.parametrize("line", ['src="https://a.b/c.js"', "url(//a.b/c.css)", "from 'http://a.b/c.js'"])
def test_an_address_elsewhere_is_noticed(line: str) -> None:
    assert elsewhere(line)


def test_scripts_and_styles_stand_in_files_of_their_own() -> None:
    html = TEXTS["/"]
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", html) == []
    assert len(re.findall(r"<script ", html)) == 2


@pytest.mark.parametrize("address", SCRIPTS)
def test_no_text_becomes_markup_or_code(address: str) -> None:
    made = r"\b(innerHTML|outerHTML|insertAdjacentHTML|setHTML\w*|DOMParser|document\.write|eval|Function)\b"
    assert re.findall(made, SCRIPTS[address]) == []


def test_whatever_a_file_names_is_served() -> None:
    named = set(re.findall(r'(?:src|href)="([^"]+)"', TEXTS["/"]))
    for text in SCRIPTS.values():
        named |= {f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
    assert "/page/events.js" in named
    assert named <= set(FILES)
    assert set(FILES) - named == {"/"}  # and nothing lies there unused


def test_the_page_is_small() -> None:
    assert sum(len(file.data) for file in FILES.values()) < 64 * 1024
    assert [address for address, text in TEXTS.items() if text.count("\n") > 250] == []


@pytest.fixture
def locked(start: Callable[..., Served]) -> httpx2.Client:
    """A server that wants a key, and a client that has none."""
    return start(keys=(digest("right"),)).client


def test_the_files_are_all_that_is_given_without_a_key(locked: httpx2.Client) -> None:
    for address, file in FILES.items():
        found = locked.get(address)
        assert (found.status_code, found.content) == (200, file.data), address
        assert found.headers["content-type"].partition(";")[0] == file.kind
    for address in (
        "/v1/models",
        "/page",
        "/page/",
        "/page/none.js",
        "/page/__init__.py",
        "/page/%2e%2e/health",
    ):
        assert locked.get(address).status_code == 401, address
    assert locked.post("/").status_code == 405


def test_every_file_comes_with_a_policy_that_allows_this_server_alone(locked: httpx2.Client) -> None:
    for address in FILES:
        headers = locked.get(address).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy.pop("img-src") == "'self' data: blob:"
        assert {policy.pop(name) for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert policy.pop("require-trusted-types-for") == "'script'"
        assert policy.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"}
        assert set(policy.values()) == {"'none'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_a_file_that_the_browser_has_is_not_sent_again(locked: httpx2.Client) -> None:
    first = locked.get("/page/style.css")
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (etag, f'"other", W/{etag}'):
        again = locked.get("/page/style.css", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert "content-security-policy" in again.headers
    for other in ('"other"', etag[:-2] + '"', ""):
        assert locked.get("/page/style.css", headers={"if-none-match": other}).status_code == 200
    assert locked.head("/").headers["content-length"] == str(len(FILES["/"].data))


def test_the_page_is_not_a_part_of_the_interface(locked: httpx2.Client) -> None:
    document = locked.get("/openapi.json", headers={"authorization": "Bearer right"}).json()
    assert "/v1/models" in document["paths"]
    assert not set(document["paths"]) & set(FILES)
