"""Images on the page: dropped, pasted, chosen, removed, and refused."""

import json
import shutil
from pathlib import Path

import pytest

from tests.page.browser import CONTROL, ENTER, INSTALLED, TAB, until
from tests.page.conftest import MOST_BYTES, SAMPLES, Page

pytestmark = pytest.mark.skipif(not INSTALLED, reason="chromium and chromedriver are not installed")

QUESTION = "return document.getElementById('question').value"


def names(page: Page) -> list[str]:
    found: list[str] = page.window.run(
        "return [...document.querySelectorAll('#tray img')].map(img => img.alt)"
    )
    return found


def addresses(page: Page) -> list[str]:
    """The data of the images in the last question that was sent."""
    parts = page.sent()[-1]["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def refusal(page: Page) -> str:
    until(lambda: page.window.text(".turn .problem"), "the refusal is shown")
    return page.window.text(".turn .problem")


def test_images_are_chosen_several_at_once_and_by_keyboard(page: Page) -> None:
    files = [SAMPLES / "quadrants.png", SAMPLES / "shapes.png"]
    page.window.type("#choose", "\n".join(map(str, files)))
    until(lambda: names(page) == ["quadrants.png", "shapes.png"], "both are there, in their order")
    page.window.click("#question")
    page.window.press(TAB)
    assert page.window.run("return document.activeElement.id") == "choose"
    page.window.run("window.opened = 0; document.activeElement.addEventListener('click', () => opened++)")
    page.window.press(" ")
    page.window.wait("opened === 1")


def test_an_image_is_pasted_from_the_clipboard(page: Page) -> None:
    page.window.devtools(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    page.window.run(
        """
        const image = await (await fetch("/page/samples/shapes.png")).blob();
        await navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
        """
    )
    page.window.click("#question")
    page.window.press(CONTROL, "v")
    until(lambda: names(page) == ["image 1"], "the pasted image is there")
    assert page.ask("What is in the image?") == "I see a red circle and a blue square on a white background."


def test_an_image_is_sent_as_it_is_and_a_removed_one_is_not(page: Page) -> None:
    page.listen()
    page.drop(SAMPLES / "shapes.png", SAMPLES / "quadrants.png", SAMPLES / "gradient.png")
    page.window.click("[aria-label='Remove quadrants.png']")
    assert names(page) == ["shapes.png", "gradient.png"]
    assert page.window.run("return document.activeElement.ariaLabel") == "Remove gradient.png"
    page.ask("What is in the image?")
    kept = [page.window.run(
        """
        const bytes = await (await fetch(`/page/samples/${given[0]}`)).bytes();
        return `data:image/png;base64,${bytes.toBase64()}`;
        """, name) for name in ("shapes.png", "gradient.png")]  # fmt: skip
    assert addresses(page) == kept
    assert page.window.run("return [...document.querySelectorAll('.question img')].map(img => img.alt)") == [
        "shapes.png",
        "gradient.png",
    ]
    assert names(page) == []


def test_a_sample_is_taken_with_a_question_that_fits_it(page: Page) -> None:
    page.window.click("#samples li:nth-child(4) button")
    until(lambda: names(page) == ["gradient.png"], "the sample is there")
    assert page.window.run(QUESTION) == "Which colours do you see?"
    page.window.press(ENTER)
    assert page.answer() == "I see a gradient from blue to yellow."
    assert page.window.text("#welcome") == ""


def test_an_image_that_cannot_be_read_is_named_and_the_question_comes_back(
    page: Page, tmp_path: Path
) -> None:
    broken = tmp_path / "holiday.png"
    broken.write_bytes((SAMPLES / "shapes.png").read_bytes()[:200])
    page.drop(SAMPLES / "quadrants.png", broken)
    page.send("Which colours do you see?")
    assert refusal(page) == "holiday.png: the image is damaged or cut short; save or download it again."
    assert page.window.run(QUESTION) == "Which colours do you see?"
    assert names(page) == ["quadrants.png", "holiday.png"]
    assert page.window.run("return document.querySelector('.refused img').alt") == "holiday.png"
    page.window.click(".refused button")
    page.enter()
    assert page.answer() == "I see red, green, blue and yellow."
    assert page.count(".turn") == 1


def test_an_image_that_is_too_large_is_told_in_the_servers_words(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(MOST_BYTES + 1))
    page.drop(large)
    page.send("What is this?")
    assert refusal(page).startswith("large.png: the image has about 500,001 bytes; at most 500,000 are read")


@pytest.mark.slow
def test_a_body_that_is_too_large_is_told_though_the_server_does_not_read_it(
    page: Page, tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(26_000_000))  # in base64 more than 32 MiB
    page.drop(large)
    page.send("What is this?")
    assert "32 MiB" in refusal(page)


def test_files_that_are_no_images_are_not_taken(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a note")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    for name, told in (
        ("notes.txt", "notes.txt is not an image."),
        ("empty.png", "empty.png is empty."),
        ("folder", "folder cannot be read."),
    ):
        page.window.drop(tmp_path / name)
        until(lambda: page.window.text("#notice") == told, told)  # noqa: B023
    assert names(page) == []
    assert page.window.run("return location.pathname") == "/"
    shutil.copy(SAMPLES / "quadrants.png", tmp_path / "untyped")
    page.drop(tmp_path / "untyped")
    assert page.window.text("#notice") == ""
    assert page.ask("Which colours do you see?") == "I see red, green, blue and yellow."


def test_an_image_alone_is_a_question(page: Page) -> None:
    page.listen()
    page.drop(SAMPLES / "quadrants.png")
    page.window.click("#send")
    page.answer()
    (message,) = page.sent()[0]["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url"]
    assert "data:image/png;base64," in json.dumps(message)
