"""OpenAI's messages: what is written is read back, by the strict reading and by the server's."""

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from backends.base import RequestError
from router.api.messages import ImageSource, data_uri, message_json, parse_message, read_messages
from router.types import Message, Picture
from tests.api.parsing import ask

IMAGE = Picture(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
MESSAGES = (
    Message.of("system", "Be short."),
    Message.of("user", IMAGE, "Which colours?", IMAGE),
    Message.of("assistant", "a", "b"),
    Message.of("user", ""),
    Message("user", ()),
)


def look(source: ImageSource) -> Picture:
    return Picture(np.asarray(Image.open(io.BytesIO(source.decoded(10**6)))))


def same(one: Message, other: Message) -> bool:
    pixels = [[p.pixels.tolist() if isinstance(p, Picture) else p for p in m.parts] for m in (one, other)]
    return one.role == other.role and pixels[0] == pixels[1]


def test_what_is_written_is_read_back_by_files_and_by_the_server() -> None:
    written = [message_json(message) for message in MESSAGES]
    for parsed in (read_messages(written), ask(messages=written).messages):
        again = [message.message(look) for message in parsed]
        assert all(map(same, MESSAGES, again))
        assert not same(again[1], Message.of("user", IMAGE, "Which colours?"))


def test_both_readings_say_where_an_image_stands() -> None:
    written = [message_json(message) for message in MESSAGES]
    for parsed in (read_messages(written), ask(messages=written).messages):
        params = [source.param for message in parsed for source in message.sources]
        assert params == ["messages[1].content[0]", "messages[1].content[2]"]


def test_a_text_alone_stands_for_itself_and_an_image_is_a_png() -> None:
    assert message_json(MESSAGES[0]) == {"role": "system", "content": "Be short."}
    image, text, _ = message_json(MESSAGES[1])["content"]
    assert text == {"type": "text", "text": "Which colours?"}
    assert image["image_url"]["url"].startswith(data_uri(b"\x89PNG")[:25])
    assert data_uri(b"\x89PNG") == "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_text", "text": "Hi"}],
        [{"type": "image_url", "image_url": data_uri(b"x")}],
        [{"type": "image_url", "image_url": {"url": data_uri(b"x"), "detail": "low"}}],
        [{"type": "image_url", "image_url": {"url": "https://images.test/a.png"}}],
        [{"type": "image_url", "image_url": {"url": "A" * 64}}],
    ],
)
def test_what_only_the_server_reads_is_refused_in_a_file(content: list[object]) -> None:
    entry = {"role": "user", "content": content}
    assert parse_message(entry, "messages[0]").parts
    with pytest.raises(RequestError, match=r"messages\[0\]\.content\[0\]"):
        read_messages([entry])


def test_messages_are_read_without_what_the_bodies_of_a_server_need() -> None:
    look_up = "import sys; import {}; print('pydantic' in sys.modules)"
    for module, loaded in (("router.api.messages", "False"), ("router.api.parse", "True")):
        command = [sys.executable, "-c", look_up.format(module)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == loaded
