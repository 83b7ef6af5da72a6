"""Another dialect is one object: the server reads, frames and refuses as it says, and knows none by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import RequestError
from router.api.chat import CHAT
from router.api.dialect import Dialect, Framing
from router.api.errors import ErrorResponse, openai_error
from router.api.messages import ParsedMessage
from router.api.parse import Document, RequestBody, parse
from router.api.request import ParsedRequest
from router.api.response import Envelope, Object
from router.types import Chunk, Completion, Sampling
from tests.server.conftest import ANSWER, Served, until

SERVER = Path(__file__).parent.parent.parent / "router" / "server"


class NoteBody(RequestBody):
    model: str
    say: str
    at_once: bool = False


class NoteLine(Object):
    number: int
    said: str
    reason: str | None = None


class NoteProblem(Object):
    problem: str


def read_note(document: Document) -> ParsedRequest:
    body = parse(NoteBody, document)
    return ParsedRequest(body.model, (ParsedMessage("user", (body.say,)),), Sampling(), not body.at_once)


def note_error(error: BaseException) -> ErrorResponse:
    answer = openai_error(error)
    return ErrorResponse(answer.status, answer.code, NoteProblem(problem=answer.code), answer.headers)


class NoteWriter:
    """Counts its lines, as formats with numbered events do."""

    def __init__(self, envelope: Envelope) -> None:
        self._served = envelope.model
        self._lines = 0

    def _line(self, text: str, reason: str | None = None) -> NoteLine:
        self._lines += 1
        return NoteLine(number=self._lines, said=text, reason=reason)

    def opening(self) -> Iterator[Object]:
        yield self._line(self._served)

    def chunk(self, chunk: Chunk) -> Iterator[Object]:
        yield self._line(chunk.text, chunk.finish)

    def failed(self, error: ErrorResponse) -> Iterator[Object]:
        yield self._line("")
        yield error.body

    def whole(self, completion: Completion) -> Object:
        return self._line(completion.text, completion.finish)


NOTES = Dialect(
    path="/notes",
    name="notes",
    description="Write a note.",
    body=NoteBody,
    whole=NoteLine,
    piece=NoteLine,
    read=read_note,
    writer=NoteWriter,
    framing=Framing(
        "application/x-ndjson",
        lambda item: item.json_text().encode() + b"\n",
        b"\n",
        b"",
        lambda item: item,
    ),
    error=note_error,
    error_body=NoteProblem,
)


@pytest.fixture
def notes(start: Any, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A server with one dialect more."""
    monkeypatch.setattr("router.server.app.DIALECTS", (CHAT, NOTES))
    served: Served = start(ping_interval=0.05)
    served.plays()
    return served


def lines(served: Served) -> list[dict[str, Any]]:
    response = served.client.post("/notes", json={"model": "scenes", "say": "Hi"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["x-hybrid-backend"] == "scripted"
    return [json.loads(line) for line in response.text.split("\n") if line]


def test_a_stream_is_framed_and_numbered_as_the_dialect_says(notes: Served) -> None:
    sent = lines(notes)
    assert [line["number"] for line in sent] == list(range(1, len(sent) + 1))
    assert sent[0]["said"] == "scenes"
    assert "".join(line["said"] for line in sent[1:]) == ANSWER
    assert sent[-1]["reason"] == "stop"
    until(notes.idle)


def test_what_keeps_a_stream_alive_is_the_dialects(notes: Served) -> None:
    notes.plays("Hi", delay=0.3)
    text = notes.client.post("/notes", json={"model": "scenes", "say": "Hi"}).text
    assert "\n\n" in text
    assert "keep-alive" not in text


def test_a_whole_answer_is_the_dialects(notes: Served) -> None:
    answer = notes.client.post("/notes", json={"model": "scenes", "say": "Hi", "at_once": True}).json()
    assert answer == {"number": 1, "said": ANSWER, "reason": "stop"}


def test_an_answer_that_breaks_off_ends_in_the_dialects_error(notes: Served) -> None:
    notes.plays(fault="raise", fault_at=2)
    sent = lines(notes)
    assert sent[-1] == {"problem": "backend_error"}
    assert sent[-2]["number"] == len(sent) - 1
    until(notes.idle)


def test_refusals_have_the_form_of_the_path_that_was_asked(notes: Served) -> None:
    refused = notes.client.post("/notes", json={"model": "scenes"})
    assert (refused.status_code, refused.json()) == (400, {"problem": "missing_parameter"})
    foreign = notes.client.post("/notes", json={}, headers={"origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()) == (403, {"problem": "forbidden_origin"})
    assert notes.client.post(CHAT.path, json={}).json()["error"]["code"] == "missing_parameter"


def test_the_document_has_the_dialects_models(notes: Served) -> None:
    document = notes.client.get("/openapi.json").json()
    operation = document["paths"]["/notes"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/NoteBody")
    answers = operation["responses"]["200"]["content"]
    assert answers["application/x-ndjson"]["schema"]["$ref"].endswith("/NoteLine")
    for status in ("400", "403"):
        refusal = operation["responses"][status]["content"]["application/json"]
        assert refusal["schema"]["$ref"].endswith("/NoteProblem")
    assert {"NoteBody", "NoteLine", "NoteProblem"} <= set(document["components"]["schemas"])


def test_dialects_are_named_where_routes_are_made_and_nowhere_else_in_the_server() -> None:
    naming = [
        file.name
        for file in SERVER.rglob("*.py")
        if {"router.api.chat", "router.api.completions"} & set(file.read_text("utf-8").split())
    ]
    assert naming == ["app.py"]


def test_a_dialect_reads_or_refuses() -> None:
    """The control of this file: its dialect can refuse."""
    with pytest.raises(RequestError, match="say is required"):
        read_note({"model": "scenes"})
