"""Streams and texts, read by the page's own modules."""

import json

import pytest

from tests.page.browser import INSTALLED
from tests.page.conftest import Page

pytestmark = pytest.mark.skipif(not INSTALLED, reason="chromium and chromedriver are not installed")

EVENTS = (
    ": a comment\n\ndata: one\n\nevent: x\ndata:two\ndata:  three é 😀\nid: 4\n\n\n"
    ": keep-alive\n\ndata: [DONE]\n\n"
)
FOUND = ["one", "two\n three é 😀", "[DONE]"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_the_same_wherever_the_bytes_were_cut(page: Page, end: str) -> None:
    wrong = page.window.run(
        """
        const { events } = await import("/page/events.js");
        const bytes = new TextEncoder().encode(given[0]);
        async function read(...cuts) {
          const pieces = [0, ...cuts].map((start, at) => bytes.slice(start, cuts[at]));
          const stream = new ReadableStream({
            start(out) { pieces.forEach(piece => out.enqueue(piece)); out.close(); }
          });
          return Array.fromAsync(events(stream));
        }
        const found = [];
        for (let cut = 0; cut <= bytes.length; cut++) found.push([cut, await read(cut)]);
        found.push(["each byte", await read(...bytes.keys())]);
        return found.filter(([, data]) => JSON.stringify(data) !== given[1]);
        """,
        EVENTS.replace("\n", end),
        json.dumps(FOUND, ensure_ascii=False, separators=(",", ":")),
    )
    assert wrong == []


def test_an_event_that_has_not_ended_is_none(page: Page) -> None:
    found = page.window.run(
        """
        const { EventReader } = await import("/page/events.js");
        return [...new EventReader().read("data: one\\n\\ndata: half\\n")];
        """
    )
    assert found == ["one"]


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("a\nb", "<p>a\nb</p>"),
        ("a\n\nb", "<p>a</p><p>b</p>"),
        ("a\n\n\nb", "<p>a</p><p>\nb</p>"),
        ("say `x < y` **now**", "<p>say <code>x &lt; y</code> <strong>now</strong></p>"),
        ("2 ** 3 ** 4, `half, ** and", "<p>2 ** 3 ** 4, `half, ** and</p>"),
        ("`<b>` <b>&amp;</b>", "<p><code>&lt;b&gt;</code> &lt;b&gt;&amp;amp;&lt;/b&gt;</p>"),
        ("a\n```py\nx = `1`\n\n**2**\n```\n\nb", "<p>a</p><pre><code>x = `1`\n\n**2**</code></pre><p>b</p>"),
        ("```\nhalf <i>", "<pre><code>half <i></code></pre>".replace("<i>", "&lt;i&gt;")),
        ("", ""),
    ],
)
def test_code_and_bold_are_all_that_is_markup(page: Page, text: str, markup: str) -> None:
    found = page.window.run(
        """
        const { show } = await import("/page/text.js");
        const whole = document.createElement("div"), grown = document.createElement("div");
        show(whole, given[0]);
        for (let end = 0; end <= given[0].length; end++) show(grown, given[0].slice(0, end));
        for (const made of grown.querySelectorAll("pre")) made.removeAttribute("aria-label");
        for (const made of whole.querySelectorAll("pre")) made.removeAttribute("aria-label");
        return [whole, grown].map(made => made.innerHTML.replaceAll(/ (tabindex|role)="\\w+"/g, ""));
        """,
        text,
    )
    assert found == [markup, markup]


def test_what_did_not_change_stays_as_it_is(page: Page) -> None:
    kept = page.window.run(
        """
        const { show } = await import("/page/text.js");
        const place = document.createElement("div");
        show(place, "one\\n\\ntw");
        const [first, second] = place.children;
        show(place, "one\\n\\ntwo");
        return [first === place.children[0], second === place.children[1], place.children.length];
        """
    )
    assert kept == [True, False, 2]
