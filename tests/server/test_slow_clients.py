"""Clients that are slow, silent or many do not hold the server."""

import socket
import time

import pytest

from tests.server.conftest import Served, post, read_all, read_until, until

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POS",
        HEAD,
        HEAD + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + b'{"model": ',
        HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{  \r\n",
    ],
    ids=["nothing", "half a line", "half the headers", "half a body", "half a chunked body"],
)
def test_a_request_that_does_not_arrive_is_given_up(start, sent: bytes) -> None:
    served = start(receive_timeout=0.4)
    begin = time.monotonic()
    with served.connected(sent) as connection:
        assert read_all(connection) == b""
        assert time.monotonic() - begin > 0.2, "it had its time"
    until(lambda: not served.server.server_state.connections)
    assert served.service.body_budget.held_bytes == 0


def test_a_request_that_trickles_is_given_up(start) -> None:
    served = start(receive_timeout=0.4)
    with served.connected(HEAD) as connection:

        def trickle() -> None:
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.05)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            trickle()


def test_an_answer_may_take_longer_than_a_request_to_arrive(start) -> None:
    served = start(receive_timeout=1)
    served.plays("Hi", delay=1.1)
    assert served.ask().status_code == 200


def test_a_connection_is_used_again_and_then_closed_when_it_is_silent(start) -> None:
    served = start(receive_timeout=2)
    with served.connected() as connection:
        for _ in range(3):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in read_until(connection, b'"ok"}')
            time.sleep(0.7)  # together longer than one request may take to arrive
        connection.sendall(b"GET /livez HT")
        assert read_all(connection) == b""


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    pair = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + post(b"{}", "Connection: close")
    with served.connected(pair) as connection:
        data = read_all(connection)
    assert data.index(b" 200 ") < data.index(b" 400 ")


def crowd(served: Served, many: int) -> None:
    connections = []
    for number in range(many):
        context = served.connected(HEAD if number % 2 else b"")
        context.__enter__()
        connections.append(context)
    assert served.ask().status_code == 200
    for context in connections:
        context.__exit__(None, None, None)


def test_what_is_sent_goes_out_at_once(served: Served) -> None:
    with served.connected(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        read_until(connection, b"ok")
        found = [at.transport.get_extra_info("socket") for at in served.server.server_state.connections]
        assert [own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for own in found].count(0) == 0
        assert found


def test_a_crowd_of_silent_clients_does_not_keep_others_out(served: Served) -> None:
    crowd(served, 100)


@pytest.mark.slow
def test_five_hundred_silent_clients_do_not_double_the_time_of_others(start) -> None:
    served = start()

    def slow_end() -> float:
        times = []
        for _ in range(100):
            begin = time.monotonic()
            assert served.ask(max_tokens=1).status_code == 200
            times.append(time.monotonic() - begin)
        return sorted(times)[98]

    idle = slow_end()
    contexts = [served.connected(HEAD) for _ in range(500)]
    for context in contexts:
        context.__enter__()
    assert slow_end() < 2 * idle + 0.05
    for context in contexts:
        context.__exit__(None, None, None)


def test_too_many_connections_are_told_so(start) -> None:
    served = start(max_connections=3)
    served.client.close()
    contexts = [served.connected() for _ in range(3)]
    for context in contexts:
        context.__enter__()
    until(lambda: len(served.server.server_state.connections) == 3)
    with served.connected() as one_more:
        answer = read_all(one_more)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"too_many_connections"' in answer
    for context in contexts:
        context.__exit__(None, None, None)
    until(lambda: not served.server.server_state.connections)
    with served.connected(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as again:
        assert b" 200 " in read_all(again)
