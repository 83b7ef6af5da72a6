"""What is written down: sizes and times, never what was said."""

import base64
import json
import logging
import re

import pytest

from benchmarks.load.image_files import encoded, photo
from router.api.messages import data_uri
from router.server import log
from tests.server.conftest import ASK, Served, read_all, until

CANARY = "canary-7f3a"
IMAGE = encoded(photo(), "PNG")


@pytest.fixture
def lines(capsys, monkeypatch):
    """What the log holds, once so many requests are in it: a line follows the last byte of its answer."""
    written: list[str] = []

    def read(requests: int = 0) -> list[str]:
        def collected() -> bool:
            written.extend(capsys.readouterr().err.splitlines())
            return sum("POST" in line for line in written) >= requests

        until(collected)
        return written

    state = [
        (logging.getLogger(n), logging.getLogger(n).handlers[:])
        for n in (log.NAME, "uvicorn.error", "asyncio")
    ]
    yield read
    for logger, handlers in state:
        logger.handlers = handlers
    logging.getLogger("uvicorn.access").disabled = False


def everything(served: Served) -> None:
    """Requests of every kind, good and bad, with the canary wherever a client can put one."""
    shown = [{"type": "text", "text": CANARY}, {"type": "image_url", "image_url": {"url": data_uri(IMAGE)}}]
    served.plays(f"{CANARY} {CANARY}")
    headers = {"authorization": f"Bearer {CANARY}", "x-canary": CANARY, "user-agent": CANARY}
    for fields in (
        {},
        {"messages": [{"role": "user", "content": shown}], "user": CANARY},
        {"stream": True, "messages": [{"role": "user", "content": CANARY}]},
        {"stop": CANARY, "metadata": {CANARY: CANARY}, CANARY: 1},
        {"temperature": CANARY},
        {"model": CANARY},
        {"seed": CANARY, "tools": [CANARY]},
        {"messages": [{"role": CANARY, "content": CANARY}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": CANARY}]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": f"http://{CANARY}/"}]}
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "A" * 64}]}]},
        {"messages": [{"role": "user", "content": CANARY * 100_000}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": CANARY}}}},
    ):
        served.client.post("/v1/chat/completions", json={**ASK, **fields}, headers=headers)
    served.client.get(f"/{CANARY}?{CANARY}={CANARY}", headers=headers)
    served.client.request(CANARY.upper(), "/v1/models")
    served.client.post("/v1/chat/completions", content=CANARY, headers={"content-type": CANARY})
    served.client.post("/v1/chat/completions", content=CANARY, headers={"content-type": "application/json"})
    for sent in (
        f"{CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{CANARY}\r\n\r\n",
    ):
        with served.connected(sent.encode()) as connection:
            read_all(connection) if CANARY in sent.split("\n")[0] else connection.recv(4096)
    for fault in ("raise", "nan"):
        served.plays(CANARY, fault=fault)
        served.ask()
        served.ask(stream=True)


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_that_was_said_is_in_the_log_or_the_metrics(lines, start, monkeypatch, as_json: bool) -> None:
    log.set_up(as_json)
    log.LOGGER.setLevel(logging.DEBUG)
    served = start()
    everything(served)

    def fail(*_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(type(served.service.router), "answer", fail)
    assert served.ask().status_code == 500
    metrics = served.client.get("/metrics").text
    written = lines(20)
    assert len(written) > 20
    text = "\n".join(written)
    assert CANARY not in text
    assert "canary" not in text.lower()
    assert CANARY not in metrics
    assert base64.b64encode(IMAGE).decode()[:40] not in text
    assert "ValueError at " in text, "where it failed is written down"


def test_a_line_has_sizes_and_times(lines, start) -> None:
    log.set_up(as_json=True)
    served = start()
    served.client.post("/v1/chat/completions", json=ASK, headers={"x-request-id": "my-id"})
    served.client.get("/health")
    written = [json.loads(line) for line in lines(1)]
    (line,) = [line for line in written if line["message"] == "POST /v1/chat/completions"]
    assert (line["level"], line["status"], line["id"]) == ("info", 200, "my-id")
    assert (line["backend"], line["finish"]) == ("scripted", "stop")
    assert line["output_tokens"] > 5
    assert 0 < line["seconds"] < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert not any("/health" in line["message"] for line in written), "health checks are not worth a line"


def test_a_failure_is_an_error_with_its_reason_and_place(lines, start) -> None:
    log.set_up(as_json=False)
    served = start()
    served.plays(fault="raise")
    served.ask()
    served.ask(stream=True)
    written = [line for line in lines(2) if "POST" in line]
    assert len(written) == 2
    assert " error: POST /v1/chat/completions status=500 " in written[0]
    assert "error=backend_error" in written[0]
    assert "BackendError at _fail:" in written[0]
    assert "reason=the script says to fail here" in written[0]
    assert "status=200" in written[1]
    assert "error=backend_error" in written[1]


def test_a_line_stays_one_line(capsys, lines) -> None:
    log.set_up(as_json=False)
    log.write("one\ntwo", reason="three\r\nfour\x1b[31m")
    (line,) = lines()
    assert line.endswith(r"one\ntwo reason=three\r\nfour\x1b[31m")


def test_a_leaving_client_is_in_the_log(lines, start) -> None:
    from tests.server.conftest import post
    from tests.server.test_queue import STREAM

    log.set_up(as_json=True)
    served = start()
    served.plays(delay=0.01)
    with served.connected(post(STREAM)) as connection:
        connection.recv(4096)
        until(lambda: served.backend.open_sessions == 1)
    until(served.idle)
    assert any(json.loads(line).get("finish") == "abort" for line in lines(1))
