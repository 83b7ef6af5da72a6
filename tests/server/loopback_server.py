"""An OpenAI-compatible server on loopback that plays scripted events, and keeps what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DONE = "data: [DONE]\n\n"


def event(**fields: object) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def piece(text: str) -> str:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}], usage=None)


def usage(prompt: int, completion: int, cached: int = 0) -> str:
    details = {"cached_tokens": cached}
    counted = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return event(choices=[], usage=counted)


HELLO = [
    event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}]),
    ": keep-alive\n\n",
    piece("Hel"),
    piece("lo"),
    piece("!"),
    event(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}]),
    usage(20, 4, 6),
    DONE,
]


class Loopback(ThreadingHTTPServer):
    """``answers``: the events of the next requests, the last one again and again; a number is a status."""

    daemon_threads = True

    def __init__(self, models: object, answers: list[list[str] | int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = models
        self.answers = answers
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Loopback
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._whole(200 if self.path == "/v1/models" else 404, self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body | {"path": self.path})
        self.server.keys.append(self.headers["Authorization"])
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, int):
            self._whole(answer, {"error": {"message": "the queue is full", "type": "x", "code": None}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for text in answer:
            data = text.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _whole(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(*answers: list[str] | int, models: object = None) -> Iterator[Loopback]:
    listed = {"data": [{"id": "small"}, {"id": "large"}]} if models is None else models
    server = Loopback(listed, list(answers) or [HELLO])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
