"""The page for everybody: themes, contrast, names, narrow windows, little motion."""

from pathlib import Path

import pytest

from tests.page.browser import ENTER, ESCAPE, INSTALLED, TAB, until
from tests.page.conftest import SAMPLES, Page

pytestmark = pytest.mark.skipif(not INSTALLED, reason="chromium and chromedriver are not installed")

PAPER = "return getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(250, 249, 247)", "rgb(22, 24, 28)"

OPERATED = {"button", "textbox", "spinbutton", "combobox", "DisclosureTriangle", "image", "list"}
FAINT = Path(__file__).with_name("contrast.js").read_text("utf-8")
BEYOND = """
  const width = document.documentElement.clientWidth;
  const isBeyond = ({ left, right }) => right > width + 0.5 || left < -0.5;
  return [...document.body.querySelectorAll("*")].filter(element => element.checkVisibility()
    && !element.matches("pre *, .unseen, option") && isBeyond(element.getBoundingClientRect()))
    .map(element => element.outerHTML);
"""


def with_everything(page: Page) -> None:
    """Have an answer, a refusal, an image, the settings and a notice on the page."""
    page.drop(SAMPLES / "quadrants.png")
    page.ask("Which colours do you see?")
    page.answers(f"data: {{}}\n\n{'x' * 300}")
    page.send("W" * 200)
    until(lambda: page.window.text(".turn .problem"), "the error is shown")
    page.drop(SAMPLES / "shapes.png")
    page.window.drop(SAMPLES)
    until(lambda: page.window.text("#notice"), "a notice")
    page.window.run("document.getElementById('settings').open = true")
    page.window.run("(await import('/page/text.js')).show(document.querySelector('.text'), given[0])",
                    "`code` **bold**\n```\n" + "long " * 100)  # fmt: skip


def test_every_text_and_edge_stands_out_in_both_themes(page: Page) -> None:
    with_everything(page)
    for theme in ("light", "dark"):
        page.window.look(1280, 900, theme)
        number, faint = page.window.run(FAINT)
        assert faint == []
        assert number > 40
    page.window.run("document.documentElement.style.setProperty('--soft', '#666')")
    assert page.window.run(FAINT)[1]  # what is too faint is found


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (640, 400), (1280, 800)])
def test_nothing_is_cut_off_in_a_narrow_window(page: Page, width: int, height: int) -> None:
    with_everything(page)
    page.window.look(width, height)
    assert page.window.run(BEYOND) == []
    assert page.window.run("return document.documentElement.scrollWidth <= innerWidth")
    page.window.run("document.querySelector('#card').style.width = '2000px'")
    assert page.window.run(BEYOND)  # what is beyond the edge is found


def test_whatever_can_be_operated_has_a_name_and_is_reached_by_keyboard(page: Page) -> None:
    with_everything(page)
    tree = page.window.devtools("Accessibility.getFullAXTree")["nodes"]
    nodes = [node for node in tree if not node["ignored"]]
    roles = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes]
    controls = [found for found in roles if found[0] in OPERATED]
    assert len(controls) > 12
    assert [found for found in controls if not found[1]] == []
    assert {"banner", "main", "form"} <= {role for role, _ in roles}
    assert ("textbox", "Question") in roles
    wanted = page.window.run(
        "return [...document.querySelectorAll('button, input, select, textarea, summary, pre')]"
        ".filter(e => e.checkVisibility()).length"
    )
    page.window.run("document.activeElement.blur(); scrollTo(0, 0); window.reached = new Set();")
    for _ in range(wanted + 3):
        page.window.press(TAB)
        ringed = page.window.run(
            "const e = document.activeElement; if (e !== document.body) reached.add(e);"
            "const ring = e.id === 'choose' ? e.nextElementSibling : e.id === 'question' ? null : e;"
            "return !ring || ring === document.body || getComputedStyle(ring).outlineStyle === 'solid'"
        )
        assert ringed
    assert page.window.run("return reached.size") == wanted


def test_the_page_follows_the_system_until_it_is_told_otherwise(page: Page) -> None:
    window = page.window
    assert window.run(PAPER) == LIGHT
    window.look(1280, 800, "dark")
    assert window.run(PAPER) == DARK
    window.click("#theme")
    assert window.run(PAPER) == LIGHT
    window.open(page.address)
    assert window.run(PAPER) == LIGHT
    window.look(1280, 800, "light")
    assert window.run(PAPER) == LIGHT
    window.click("#theme")
    assert window.run(PAPER) == DARK
    window.click("#theme")  # as the system says again: there is nothing to keep
    assert window.run("return localStorage.length") == 0
    window.open(page.address)
    window.look(1280, 800, "dark")
    assert window.run(PAPER) == DARK


def test_nothing_moves_for_whom_that_is_too_much(stuck: Page) -> None:
    stuck.send("Go on")
    until(lambda: stuck.window.text("[aria-busy=true] .text"), "the answer begins")
    moving = "return document.getAnimations().length"
    until(lambda: stuck.window.run(moving) == 1, "the mark of an answer that comes")
    stuck.window.look(1280, 800, motion="reduce")
    assert stuck.window.run(moving) == 0
    stuck.window.press(ESCAPE)
    stuck.answer()


def test_the_button_that_had_the_focus_hands_it_on(stuck: Page) -> None:
    stuck.window.type("#question", "Go on")
    stuck.window.run("document.getElementById('send').focus()")
    stuck.window.press(ENTER)
    focused = "return document.activeElement.id"
    until(lambda: stuck.window.run(focused) == "stop", "the stop button has the focus")
    stuck.window.press(ENTER)
    stuck.answer()
    assert stuck.window.text(".facts").endswith("stopped")
    assert stuck.window.run(focused) == "send"


def test_who_reads_further_up_is_left_there(slow: Page) -> None:
    slow.unlock()
    slow.allow(400)
    slow.window.look(390, 500)
    slow.ask("Go on")
    place = "return Math.round(scrollY)"
    end = "return Math.round(document.documentElement.scrollHeight - innerHeight)"
    assert abs(slow.window.run(place) - slow.window.run(end)) < 5
    slow.send("Go on")
    until(lambda: slow.window.text("[aria-busy=true] .text"), "the answer begins")
    slow.window.run("scrollTo(0, 40)")
    slow.answer()
    assert slow.window.run(place) == 40
