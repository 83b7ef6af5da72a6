"""Questions, answers, and what goes wrong with them, in a real browser."""

import json
import re

import pytest

from tests.conftest import ANSWER
from tests.page.browser import CONTROL, ENTER, ESCAPE, INSTALLED, SHIFT, until
from tests.page.conftest import HOSTILE, KEY, SAMPLES, SCRIPT, Page

pytestmark = pytest.mark.skipif(not INSTALLED, reason="chromium and chromedriver are not installed")

DONE = "data: [DONE]\n\n"
BUSY = ".answer[aria-busy=true]"


def chunk(text: str) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def test_a_dropped_image_is_answered_and_the_next_question_knows_of_it(page: Page) -> None:
    page.drop(SAMPLES / "quadrants.png")
    assert page.ask("Which colours do you see?") == ANSWER
    facts = page.window.text(".facts")
    assert re.fullmatch(
        r"onnx the conversation has an image\n\d+ tokens in(?: \(\d+ read before\))? · \d+ out · "
        r"first after \d+\.\d\d s · [\d.]+ tokens/s",
        facts,
    ), facts
    assert page.ask("Which colour is at the top left?") == "The top left is red."
    assert page.window.text(".facts").startswith("onnx the conversation has an image\n")
    assert page.window.complaints() == []


def test_text_alone_goes_elsewhere_and_a_new_chat_forgets(page: Page) -> None:
    page.listen()
    page.drop(SAMPLES / "quadrants.png")
    page.ask("Which colours do you see?")
    page.window.click("#new-chat")
    assert (page.count(".turn"), page.count("#tray li")) == (0, 0)
    assert page.ask("What can you do?") == "I can name the colours and shapes of simple pictures."
    assert page.window.text(".facts").startswith("genai text only\n")
    first, second = page.sent()
    assert "image_url" in json.dumps(first)
    assert second["messages"] == [{"role": "user", "content": "What can you do?"}]


def test_the_answer_is_shown_while_it_comes_and_told_once(slow: Page) -> None:
    slow.unlock()
    slow.window.run(
        "window.told = []; new MutationObserver(() => told.push(document.getElementById('said').textContent))"
        ".observe(document.getElementById('said'), { childList: true });"
    )
    slow.window.run(
        "window.parts = []; new MutationObserver(() => {"
        "  const part = document.querySelector(given[0])?.innerText; if (part) parts.push(part);"
        "}).observe(document.getElementById('conversation'), { childList: true, subtree: true });",
        f"{BUSY} .text",
    )
    slow.allow(400)
    slow.send("Go on")
    whole = slow.answer()
    part = slow.window.run("return parts[0]")
    assert whole.startswith(part[:-1])
    assert len(part) < len(whole) / 2
    assert slow.window.run("return told.filter(Boolean)") == ["Waiting for the answer.", SCRIPT]


def test_what_was_said_until_the_stop_stays_and_the_server_stops_too(stuck: Page) -> None:
    stuck.listen()
    for stop in ("button", "key"):
        stuck.send("Go on")
        until(lambda: len(stuck.window.text(f"{BUSY} .text")) > 5, "something is said")
        stuck.window.click("#stop") if stop == "button" else stuck.window.press(ESCAPE)
        assert SCRIPT.startswith(stuck.answer()[:6])
        assert stuck.window.text(".facts") == "scripted asked for by name\nstopped"
        assert stuck.window.run("return document.getElementById('stop').hidden")
    said = stuck.window.run("return document.querySelector('.answer .text').textContent")
    kept = stuck.sent()[1]["messages"]
    assert isinstance(kept, list)
    assert [message["role"] for message in kept] == ["user", "assistant", "user"]
    assert kept[1]["content"].startswith(said[:6])
    assert len(kept[1]["content"]) < len(SCRIPT) / 2
    until(lambda: stuck.window.run(
        "return /requests_running\\S* 0/.test(await (await fetch('/metrics', "
        "{headers: {authorization: `Bearer ${given[0]}`}})).text())", KEY), "the server is idle")  # fmt: skip


def test_a_wrong_key_is_asked_for_again_and_the_right_one_stays_in_the_tab(slow: Page) -> None:
    window = slow.window
    window.wait("document.getElementById('key').open")
    assert window.text("#key-problem") == ""
    window.type("#key-value", "wrong" + ENTER)
    until(lambda: window.text("#key-problem") == "The server did not accept that key.", "the key is refused")
    window.type("#key-value", KEY + ENTER)
    slow.ready()
    window.open(slow.address)
    slow.ready()
    assert not window.run("return document.getElementById('key').open")
    assert window.run("return [location.href, localStorage.length, document.cookie]") == [
        f"{slow.address}/",
        0,
        "",
    ]


def test_without_a_key_the_question_is_not_lost(slow: Page) -> None:
    window = slow.window
    window.wait("document.getElementById('key').open")
    window.press(ESCAPE)
    until(lambda: "API key" in window.text("#model"), "the page says what is missing")
    slow.send("Go on")
    window.wait("document.getElementById('key').open")
    window.click("#key-cancel")
    until(lambda: "a valid API key is needed" in window.text(".turn .problem"), "the refusal is shown")
    assert window.run("return document.getElementById('question').value") == "Go on"
    slow.enter()
    window.wait("document.getElementById('key').open")
    window.type("#key-value", KEY + ENTER)
    assert slow.answer().startswith("Look: ")
    assert slow.count(".turn") == 1


def test_markup_stays_text_in_the_question_and_in_the_answer(slow: Page) -> None:
    slow.unlock()
    slow.allow(400)
    answer = slow.ask(HOSTILE)
    assert answer.startswith(f"Look: {HOSTILE} and code <b> and bold <i>.")
    assert slow.window.text(".question p") == HOSTILE
    assert slow.count(".turn :is(img, b, i, script)") == 0
    assert slow.count(".text code") == 2
    assert "document.title = 'owned'" in slow.window.text(".text pre")
    assert slow.window.run("return document.title") == "hybrid"


def test_markup_that_gets_in_by_a_mistake_is_refused_by_the_browser(page: Page) -> None:
    forbidden = page.window.run(
        """
        const violation = () => new Promise(done => document.addEventListener(
          "securitypolicyviolation", event => done(event.effectiveDirective), { once: true }
        ));
        const tries = [
          () => document.body.insertAdjacentHTML("beforeend", given[0]),
          () => document.createElement("b").setAttribute("onclick", "document.title = 'owned'"),
          () => fetch(given[1]),
          () => { new Image().src = given[1]; },
        ];
        const found = [];
        for (const attempt of tries) {
          const seen = violation();
          try { await attempt(); } catch {}
          found.push(await seen);
        }
        return found;
        """,
        HOSTILE,
        page.address.replace("127.0.0.1", "localhost"),  # the same server, which is another to a browser
    )
    assert forbidden == ["require-trusted-types-for", "require-trusted-types-for", "connect-src", "img-src"]
    assert page.window.run("return document.title") == "hybrid"


def test_an_error_in_the_middle_is_shown_in_words_and_the_question_comes_back(page: Page) -> None:
    error = {"error": {"message": "the backend failed", "type": "server_error", "param": None, "code": "x"}}
    page.answers(": keep-alive\n\n", chunk("Half of"), f"data: {json.dumps(error)}\n\n")
    page.send("Why?")
    until(lambda: page.window.text(".turn .problem"), "the error is shown")
    assert page.window.text(".turn .problem") == "No answer: the backend failed."
    assert page.window.text(".answer .text") == "Half of"
    assert page.window.run("return document.getElementById('question').value") == "Why?"
    page.answers(chunk("All of it."), DONE)
    page.enter()
    until(lambda: page.window.text(".answer .text") == "All of it.", "the second answer")
    assert page.count(".turn") == 1


def test_a_stream_that_breaks_off_is_no_whole_answer(page: Page) -> None:
    page.answers(chunk("Half of"))
    page.send("Why?")
    until(lambda: "ended before the answer did" in page.window.text(".turn .problem"), "the break is told")


def test_a_server_that_is_gone_is_told(page: Page) -> None:
    page.window.connect(False)
    try:
        page.send("Is anybody there?")
        until(lambda: page.window.text(".turn .problem"), "the error is shown")
        assert page.window.text(".turn .problem") == "No answer: the server cannot be reached."
    finally:
        page.window.connect(True)


def test_enter_sends_and_shift_enter_does_not(page: Page) -> None:
    page.listen()
    page.window.type("#question", "One")
    page.window.press(SHIFT, ENTER)
    page.window.type("#question", "two")
    assert page.count(".turn") == 0
    page.window.press(ENTER)
    page.answer()
    assert page.sent()[0]["messages"] == [{"role": "user", "content": "One\ntwo"}]
    page.window.press(ENTER)
    until(lambda: "Write a question" in page.window.text("#notice"), "nothing to ask is told")
    assert page.count(".turn") == 1


def test_only_one_question_is_asked_at_a_time(stuck: Page) -> None:
    stuck.send("Go on")
    stuck.window.type("#question", "And this?" + ENTER)
    until(lambda: "Wait for this answer" in stuck.window.text("#notice"), "the page says to wait")
    stuck.window.press(ESCAPE)
    stuck.answer()
    assert stuck.window.run("return document.getElementById('question').value") == "And this?"
    assert stuck.count(".turn") == 1


def test_the_settings_are_sent_and_wrong_ones_are_not(page: Page) -> None:
    page.listen()
    page.window.click("summary")
    page.window.type("#temperature", "7")
    page.window.type("#seed", "11")
    page.window.type("#max_tokens", "3")
    page.window.type("#system", "Be short.")
    page.window.type("#backend", "onnx")
    page.window.click("summary")
    page.window.type("#question", "What can you do?" + ENTER)
    page.window.wait("document.activeElement.id === 'temperature'")  # opened again to show what is wrong
    assert page.window.run("return document.getElementById('settings').open")
    assert page.sent() == []
    page.window.press(CONTROL, "a")
    page.window.type("#temperature", "0.5")
    page.enter()
    assert len(page.answer().split()) <= 3
    (body,) = page.sent()
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.5, 11, 3)
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    facts = page.window.text(".facts")
    assert facts.startswith("onnx asked for by name\n")
    assert facts.endswith(" · cut off at the most tokens allowed")
    page.window.click("summary")
    assert (
        page.window.text("#settings-said")
        == "backend onnx, temperature 0.5, at most 3 tokens, seed 11, a system prompt"
    )
