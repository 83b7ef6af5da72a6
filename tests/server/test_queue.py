"""Bounded under load: what is accepted is finished, the rest is told so at once, and who leaves frees all."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from backends.scripted import ScriptedBackend
from router import Request, Router
from router.api.parse import read_document
from router.server import endpoints
from router.server.admission import Queue
from router.server.metrics import RequestMetrics
from tests.server.conftest import (
    ANSWER,
    ASK,
    Served,
    before_each_step,
    post,
    read_all,
    read_until,
    script,
    until,
)

STREAM = json.dumps({**ASK, "stream": True, "ignore_eos": True, "max_tokens": 4000}).encode()
WHOLE = json.dumps({**ASK, "ignore_eos": True, "max_tokens": 4000}).encode()


def gauge(served: Served, name: str) -> float:
    lines = served.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"hybrid_{name}{{"))


def test_more_than_fit_are_refused_at_once_and_the_others_are_answered(start, gate) -> None:
    gate.set()  # for what the server asks when it begins
    served = start(max_queue=8)
    served.plays("Hi")
    gate.clear()
    clients = 60
    barrier = threading.Barrier(clients)
    told: list[int] = []

    def once(_: int) -> httpx2.Response:
        with httpx2.Client(base_url=served.client.base_url, timeout=60) as client:
            client.get("/livez")
            barrier.wait(30)
            response = client.post("/v1/chat/completions", json=ASK)
            told.append(response.status_code)
            return response

    with ThreadPoolExecutor(clients) as pool:
        sent = [pool.submit(once, number) for number in range(clients)]
        until(lambda: told == [429] * (clients - 9))  # no answer has ended yet
        gate.set()
        responses = [response.result() for response in sent]
    answered = [r for r in responses if r.status_code == 200]
    refused = [r for r in responses if r.status_code == 429]
    assert len(answered) + len(refused) == clients
    assert len(answered) == 9
    assert refused
    assert {r.json()["choices"][0]["message"]["content"] for r in answered} == {"Hi"}
    assert {r.json()["error"]["code"] for r in refused} == {"queue_full"}
    assert all(1 <= int(r.headers["retry-after"]) <= 60 for r in refused)
    until(served.idle)


def test_turns_come_in_the_order_of_arrival(start, gate, monkeypatch) -> None:
    gate.set()
    served = start(max_queue=5)
    served.plays("a b c d")
    gate.clear()
    turns: list[str] = []
    answer = Router.answer

    def listened(self: Router, request: Request, others: int = 0) -> Any:
        turns.append(str(request.messages[0].parts[0]))
        return answer(self, request, others)

    monkeypatch.setattr(Router, "answer", listened)

    def once(number: int) -> None:
        assert served.ask(messages=[{"role": "user", "content": str(number)}]).status_code == 200

    threads = [threading.Thread(target=once, args=(number,)) for number in range(6)]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda number=number: served.service.queue.inside > number)
    assert served.ask().status_code == 429
    until(lambda: gauge(served, "requests_running") == 1)
    until(lambda: gauge(served, "requests_waiting") == 5)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert turns == [str(number) for number in range(6)]
    until(lambda: gauge(served, "requests_running") == gauge(served, "requests_waiting") == 0)


def test_the_router_is_told_how_many_others_there_are(start, monkeypatch) -> None:
    served = start(max_queue=5)
    served.plays(fault="hang", fault_at=1)
    seen: list[int] = []

    def listened(work: Any) -> Any:
        def heard(self: Router, request: Request, others: int = 0) -> Any:
            seen.append(others)
            return work(self, request, others)

        return heard

    for name in ("answer", "route"):
        monkeypatch.setattr(Router, name, listened(getattr(Router, name)))
    with served.connected(post(WHOLE)):
        until(lambda: seen == [0])
        with served.connected(post(WHOLE)):
            until(lambda: seen == [0, 1])
            served.client.post("/v1/route", json=ASK)
            assert seen == [0, 1, 2]
    until(served.idle)
    served.client.post("/v1/route", json=ASK)
    assert seen == [0, 1, 2, 0]


def test_two_turns_at_once_where_that_is_allowed(start, gate) -> None:
    gate.set()
    served = start(max_concurrency=2)
    served.plays("Hi")
    gate.clear()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(served.ask) for _ in range(3)]
        until(lambda: served.backend.open_sessions == 2)
        until(lambda: served.service.queue.inside == 3)
        assert served.backend.open_sessions == 2
        gate.set()
        assert {answer.result().status_code for answer in answers} == {200}


async def filled(turns: int, waiting: int, durations: list[float]) -> Queue:
    now = 0.0
    queue = Queue(turns, waiting, lambda: now)
    for seconds in durations:
        slot = queue.enter()
        await slot.wait_for_turn()
        now += seconds
        slot.leave()
    return queue


@pytest.mark.parametrize(
    ("turns", "durations", "seconds"),
    [
        (1, [], 1),
        (1, [0.1], 1),
        (1, [10, 20], 15),
        (1, [500], 60),
        (4, [10, 20], 4),
        (1, [90] * 5 + [2] * 20, 2),
    ],
)
def test_when_to_come_again_is_the_mean_of_the_last_answers(turns, durations, seconds) -> None:
    assert asyncio.run(filled(turns, 0, durations)).retry_after == seconds


def test_a_waiter_that_leaves_gives_its_place_to_the_next(start) -> None:
    served = start(max_queue=1)
    served.plays(delay=0.05)
    with served.connected(post(STREAM)) as running:
        running.recv(100)
        with served.connected(post(WHOLE)):
            until(lambda: served.service.queue.inside == 2)
            assert served.ask().status_code == 429
        until(lambda: served.service.queue.inside == 1)
        with served.connected(post(STREAM)) as next_one:
            assert b" 200 " in next_one.recv(4096)
    until(served.idle)  # far sooner than the answer would have ended
    assert served.ask().status_code == 200


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["streamed", "whole"])
@pytest.mark.parametrize("delay", [0.01, 30.0], ids=["while it writes", "while it reads the prompt"])
def test_computing_ends_when_the_client_leaves(served: Served, body: bytes, delay: float) -> None:
    served.plays(delay=delay)
    with served.connected(post(body)):
        until(lambda: served.backend.open_sessions == 1)
        (session,) = served.backend.sessions
        until(lambda: session.played >= (1 if delay > 1 else 4))
    until(served.idle)  # far sooner than the answer would have ended
    served.plays()
    assert served.ask().status_code == 200


def storm(served: Served, times: int) -> None:
    served.plays(delay=0.01)
    for number in range(times):
        with served.connected(post(STREAM if number % 4 else WHOLE)) as connection:
            if number % 4:
                read_until(connection, b'"content":" see"')
            elif number % 8:
                until(lambda: served.service.queue.inside >= 1)
    until(served.idle)  # far sooner than the answer would have ended
    until(lambda: served.service.state.cancel_scopes == set())
    until(lambda: served.service.body_budget.held_bytes == served.service.preprocessor.held_bytes == 0)
    served.plays()
    assert served.ask().json()["choices"][0]["message"]["content"] == ANSWER


def test_a_storm_of_leaving_clients_leaves_nothing_behind(served: Served) -> None:
    storm(served, 24)


@pytest.mark.slow
def test_two_hundred_leaving_clients_leave_nothing_behind(served: Served) -> None:
    storm(served, 200)


def test_nothing_more_is_computed_after_they_left(served: Served, monkeypatch) -> None:
    steps: list[None] = []
    before_each_step(monkeypatch, lambda: steps.append(None))
    served.plays(delay=0.005)
    for _ in range(5):
        with served.connected(post(STREAM)) as connection:
            read_until(connection, b"content")
            until(lambda: served.backend.open_sessions == 1)
    until(served.idle)
    count = len(steps)
    served.plays("a b c d")
    assert served.ask().status_code == 200  # meanwhile nobody else took a step
    assert len(steps) - count == len(script("a b c d").tokens)
    assert count > 0


def test_an_answer_that_takes_too_long_is_given_up(start) -> None:
    served = start(request_timeout=1.5)
    served.plays(delay=0.05)
    whole = served.ask(ignore_eos=True, max_tokens=4000)
    assert whole.status_code == 504
    assert whole.headers["x-should-retry"] == "false"
    assert whole.json()["error"]["code"] == "timeout"
    assert "1.5 s" in whole.json()["error"]["message"]
    streamed = served.ask(stream=True, ignore_eos=True, max_tokens=4000).text.split("\n\n")
    assert json.loads(streamed[-2].removeprefix("data: "))["error"]["code"] == "timeout"
    assert "[DONE]" not in streamed
    until(served.idle)
    served.plays()
    assert served.ask().status_code == 200


def test_waiting_counts_into_the_time_of_a_request(start) -> None:
    served = start(request_timeout=0.5)
    served.plays(delay=0.45)
    with served.connected(post(STREAM)):
        until(lambda: served.backend.open_sessions == 1)
        assert served.ask().status_code == 504


def test_a_backend_that_does_not_stop_makes_the_service_unhealthy(start, monkeypatch) -> None:
    served = start(request_timeout=0.2)
    monkeypatch.setattr("router.server.admission.STUCK_SECONDS", 2)
    free = threading.Event()
    before_each_step(monkeypatch, lambda: free.wait(30))
    assert served.ask().status_code == 504
    assert served.client.get("/health").status_code == 200, "it has a moment to stop"
    until(lambda: served.client.get("/health").status_code == 503)
    assert served.client.get("/readyz").json()["error"]["message"] == "A backend does not answer"
    assert served.client.get("/livez").status_code == 200
    free.set()
    until(lambda: served.client.get("/health").status_code == 200)
    assert served.ask().status_code in (200, 504)
    until(served.idle)


def test_health_answers_while_requests_are_read_and_prepared(start, monkeypatch) -> None:
    served = start()
    gate, reached = threading.Event(), threading.Semaphore(0)

    def held(work: Any) -> Any:
        def wait(*arguments: Any) -> Any:
            reached.release()
            assert gate.wait(30)
            return work(*arguments)

        return wait

    router = type(served.service.router)
    monkeypatch.setattr(endpoints, "read_document", held(endpoints.read_document))  # of a large body
    monkeypatch.setattr(router, "answer", held(router.answer))  # of any
    monkeypatch.setattr(endpoints, "SMALL", 1000)
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(served.ask, user="x" * 2000)]
        assert reached.acquire(timeout=10)
        assert served.client.get("/health").status_code == 200
        gate.set()
        assert sent[0].result().status_code == 200
        gate.clear()
        monkeypatch.setattr(endpoints, "SMALL", 10**6)
        monkeypatch.setattr(endpoints, "read_document", read_document)
        sent.append(pool.submit(served.ask))
        assert reached.acquire(timeout=10)
        assert reached.acquire(timeout=10)
        assert served.client.get("/health").status_code == 200
        gate.set()
        assert sent[1].result().status_code == 200


def test_prepared_images_wait_for_memory(start, gate) -> None:
    from tests.server.test_wire import SHOWN

    gate.set()
    served = start(max_prepared=1, max_queue=4)
    served.plays("Hi", delay=0.2)
    gate.clear()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(served.ask, messages=SHOWN) for _ in range(3)]
        until(lambda: served.service.queue.inside == 3)
        until(lambda: served.service.preprocessor.held_bytes > 0)
        most = served.service.preprocessor.held_bytes
        gate.set()
        while served.service.queue.inside:
            most = max(most, served.service.preprocessor.held_bytes)
            time.sleep(0.005)
        assert {answer.result().status_code for answer in answers} == {200}
    one = 48 * 1536 * 4  # of one image of 6 x 8 patches, as float32
    assert most == one
    until(lambda: served.service.preprocessor.held_bytes == 0)


def test_a_reader_that_does_not_read_is_cut_off_and_the_next_is_served(start) -> None:
    served = start(stall_timeout=2)
    served.plays("word " * 200)
    huge = json.dumps({**ASK, "stream": True, "ignore_eos": True, "max_tokens": 4000, "logprobs": True,
                       "top_logprobs": 20}).encode()  # fmt: skip
    with served.connected(post(huge), receive_buffer=4096) as connection:
        until(lambda: served.backend.open_sessions == 1)
        until(served.idle, 20)
        data = read_all(connection)
    assert b"choices" in data
    assert b"[DONE]" not in data
    assert served.ask(max_tokens=3).status_code == 200


def test_a_slow_reader_gets_everything(start) -> None:
    served = start(stall_timeout=5)
    served.plays("word " * 200)
    body = json.dumps(
        {**ASK, "stream": True, "logprobs": True, "top_logprobs": 20, "max_tokens": 300}
    ).encode()
    with served.connected(post(body, "Connection: close"), receive_buffer=4096) as connection:
        data = b""
        while piece := connection.recv(8192):
            data += piece
            time.sleep(0.001)
    assert data.rstrip().endswith(b"0")
    assert b"data: [DONE]" in data


def test_a_script_is_a_script() -> None:
    """The control of this file: a script of a long delay really holds its session."""
    backend = ScriptedBackend(script(delay=0.05), 1024)
    session = backend.open(10)
    start = time.monotonic()
    session.decode(1)
    assert time.monotonic() - start >= 0.05


def test_what_a_request_took_is_measured(start) -> None:
    served = start()  # where no request of another test is counted late
    metrics = RequestMetrics(served.service.metrics)
    metrics.on_end("abort")
    served.plays("a b", delay=0.01)
    before = gauge(served, "e2e_request_latency_seconds_count")
    served.ask()
    until(lambda: gauge(served, "e2e_request_latency_seconds_count") == before + 1)
    body: dict[str, Any] = served.ask().json()
    until(lambda: gauge(served, "generation_tokens_total") >= 2 * body["usage"]["completion_tokens"])
