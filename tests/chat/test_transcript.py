"""/save and /load: what was said, as JSON and back."""

import base64
import io
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.base import RequestError
from router.cli.chat import transcript
from router.cli.chat.transcript import from_json, to_json
from router.images import InputLimits
from router.types import Message, Picture

LIMITS = InputLimits()


def noise(width: int, height: int) -> Picture:
    return Picture(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


SAID = (
    Message.of("system", "Be short. ☃"),
    Message.of("user", noise(33, 17), "Which colours?", noise(1, 1), "And\nthere?"),
    Message.of("assistant", 'Red, "green"\u2028\x00 and <|im_end|> \\n.'),
    Message.of("user", ""),
    Message.of("assistant", "a", "b"),
    Message("user", ()),
)


def same(one: Message, other: Message) -> bool:
    if (one.role, len(one.parts)) != (other.role, len(other.parts)):
        return False
    return all(
        np.array_equal(a.pixels, b.pixels) if isinstance(a, Picture) and isinstance(b, Picture) else a == b
        for a, b in zip(one.parts, other.parts, strict=True)
    )


def test_saving_and_loading_gives_every_text_and_pixel_back(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    transcript.write(str(file), to_json(SAID), over=False)
    loaded = from_json(transcript.read(str(file)), LIMITS)
    assert len(loaded) == len(SAID)
    assert all(map(same, SAID, loaded))
    assert not same(SAID[1], Message.of("user", noise(33, 17), "Which colours?", noise(2, 1), "And\nthere?"))


def test_an_image_larger_than_an_upload_may_be_comes_back_too() -> None:
    limits = InputLimits(max_bytes=1000, max_pixels=5000)
    (loaded,) = from_json(to_json([Message.of("user", noise(70, 70))]), limits)
    assert same(loaded, Message.of("user", noise(70, 70)))


def test_the_file_is_what_the_api_takes() -> None:
    said = json.loads(to_json(SAID[:3]))
    assert list(said) == ["messages"]
    system, user, assistant = said["messages"]
    assert system == {"role": "system", "content": "Be short. ☃"}
    assert [part["type"] for part in user["content"]] == ["image_url", "text", "image_url", "text"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert assistant["content"] == SAID[2].parts[0]


def test_a_bare_list_of_messages_is_read() -> None:
    (message,) = from_json('[{"role": "user", "content": "hello"}]', LIMITS)
    assert message.parts == ("hello",)


def shown(data: bytes, kind: str = "png") -> list[object]:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def user(content: object) -> list[object]:
    return [{"role": "user", "content": content}]


def image(url: object) -> list[object]:
    return user([{"type": "image_url", "image_url": {"url": url}}])


HOSTILE = {
    "nothing": ("", "not JSON of a conversation"),
    "half of it": ('[{"role": "user", "con', "not JSON of a conversation"),
    "a deep nest": ("[" * 100_000, "nested too deeply"),
    "a long number": ('{"messages": ' + "9" * 5000 + "}", "not JSON of a conversation"),
    "a field twice": ('{"messages": [], "messages": []}', "names a field twice"),
    "a number": ("1", "messages must be a list of messages, got 1"),
    "another object": ('{"model": "x"}', "the file has no messages"),
    "a request": ('{"messages": [], "temperature": 1}', "the file has 'temperature', which is not read"),
    "a text for a message": (["hi"], "messages[0] must be an object with role and content, got 'hi'"),
    "no content": ([{"role": "user"}], "messages[0] has no content"),
    "a tool's": (
        [{"role": "tool", "content": "x"}],
        "messages[0].role must be one of system",
    ),
    "an unhashable role": ([{"role": [], "content": "x"}], "messages[0].role must be one of"),
    "a name": ([{"role": "user", "content": "x", "name": "y"}], "messages[0] has 'name', which is not read"),
    "no text": (user(None), "messages[0].content must be a text or a list of parts, got None"),
    "a number for a text": (
        user([{"type": "text", "text": 1}]),
        "content[0].text must be a text",
    ),
    "sound": (user([{"type": "input_audio"}]), "messages[0].content[0].type must be text or image_url"),
    "a bare part": (user(["x"]), "messages[0].content[0].type must be"),
    "an address": (image("https://example.com/a.png"), "images elsewhere are not fetched"),
    "a local file": (image("file:///etc/passwd"), "images elsewhere are not fetched"),
    "a text as an image": (image("data:text/html;base64,aGk="), "must be data:image/png;base64"),
    "no address": (image(None), "messages[0].content[0].image_url.url must be"),
    "a bare address": (user([{"type": "image_url", "image_url": "data:,"}]), "must be an object with url"),
    "bad base64": (image("data:image/png;base64,aG*k="), "is not valid base64"),
    "not an image": (shown(b"hello"), "messages[0].content[0].image_url.url: the image is not a PNG"),
    "an empty image": (shown(b""), "the image is empty"),
    "a cut image": (shown(png(64, 64)[:60]), "is damaged or cut short"),
    "a bomb": (shown(png(10_000, 8_000)), "at most 40,000,000 are read"),
    "a thread": (shown(png(1, 300)), "at most 200 times"),
    "nine images": (shown(png(1, 1)) * 9, "it holds 9 images; at most 8 are read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_words(case: str) -> None:
    said, words = HOSTILE[case]
    with pytest.raises(RequestError) as raised:
        from_json(said if isinstance(said, str) else json.dumps(said), LIMITS)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 300


def test_no_image_is_decoded_before_the_rest_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(transcript, "read_image", fail)
    with pytest.raises(RequestError, match=r"messages\[1\]"):
        from_json(json.dumps([*shown(png(1, 1)), {"role": "user"}]), LIMITS)
    with pytest.raises(AssertionError, match="decoded"):
        from_json(json.dumps(shown(png(1, 1))), LIMITS)


def test_a_file_that_is_there_is_replaced_only_when_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a file.json"
    transcript.write(str(file), "one", over=False)
    with pytest.raises(RequestError, match="there already; /save! replaces it"):
        transcript.write(str(file), "two", over=False)
    assert file.read_text() == "one"
    transcript.write(str(file), "two", over=True)
    assert file.read_text() == "two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["a file.json"]


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("one")
    link.symlink_to(file)
    transcript.write(str(link), "two", over=True)
    assert link.is_symlink()
    assert file.read_text() == "two"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_text("one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RequestError, match="cannot be written: No space left on device"):
        transcript.write(str(file), "two", over=True)
    assert file.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_is_not_a_file_of_text_is_neither_written_nor_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in {
        "pipe": "not a regular file",
        "latin": "not UTF-8",
        "gone": "cannot be read: No such file",
        "": "cannot be read: Is a directory",
        "a\0b": "cannot be the name of a file",
        "loop": "cannot be read: Too many levels",
    }.items():
        with pytest.raises(RequestError, match=words):
            transcript.read(f"{tmp_path}/{name}")
    for name, words in {
        "": "is a folder",
        "gone/file": "cannot be written: No such file",
        "a\0b": "cannot be the name of a file",
        "pipe": "there already",
    }.items():
        with pytest.raises(RequestError, match=words):
            transcript.write(f"{tmp_path}/{name}", "x", over=False)
    with pytest.raises(RequestError):
        transcript.write(f"{tmp_path}/loop", "x", over=True)


def test_a_file_too_large_to_read_is_neither_read_nor_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(transcript, "LARGEST", 10)
    (tmp_path / "large").write_text("x" * 11)
    with pytest.raises(RequestError, match="has 11 bytes; at most 10 are read"):
        transcript.read(str(tmp_path / "large"))
    with pytest.raises(RequestError, match="11 bytes"):
        transcript.write(str(tmp_path / "new"), "x" * 11, over=False)
    transcript.write(str(tmp_path / "new"), "x" * 10, over=False)
    assert transcript.read(str(tmp_path / "new")) == "x" * 10
