"""Work in a process of its own: its results, its errors, its end."""

import os
import signal
import time
from contextlib import closing
from functools import partial
from os import _exit
from typing import Any

import pytest

from backends.base import BackendError, RequestError
from router.bench.process import Process, Target, workers
from router.bench.workloads import Job
from router.types import Message
from tests.bench.benches import TEXT
from tests.bench.test_local import Echo


def work(kept: list[int], what: Any) -> Any:
    match what:
        case "refuse":
            raise RequestError("not this", code="special", param="what")
        case "fail":
            raise BackendError("no memory", code="out_of_memory")
        case "bug":
            raise ZeroDivisionError("oh")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            _exit(3)
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        case "print":
            print("to whoever looks", flush=True)
        case "hang":
            time.sleep(3600)
    kept.append(len(kept))
    return os.getpid(), list(kept)


@pytest.fixture
def process():
    made = Process(partial(work, []), "test")
    yield made
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(made.pid, 0)  # ended, and waited for


def test_work_is_done_elsewhere_and_what_it_holds_stays(process: Process) -> None:
    assert process.call("")[1] == [0]
    pid, kept = process.call("")
    assert kept == [0, 1]
    assert pid == process.pid != os.getpid()


def test_errors_come_back_whole_and_the_process_goes_on(process: Process) -> None:
    with pytest.raises(RequestError, match="not this") as caught:
        process.call("refuse")
    assert (caught.value.code, caught.value.param) == ("special", "what")
    with pytest.raises(BackendError, match="no memory") as failed:
        process.call("fail")
    assert failed.value.code == "out_of_memory"
    with pytest.raises(BackendError, match="ZeroDivisionError: oh"):
        process.call("bug")
    assert process.call("")[1] == [0]


def test_ctrl_c_is_the_parent_s_business(process: Process) -> None:
    assert process.call("interrupt")[1] == [0]


def test_what_it_prints_stays_off_the_report(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Process(partial(work, []), "test")) as printing:
        printing.call("print")
    assert capfd.readouterr() == ("", "to whoever looks\n")


@pytest.mark.parametrize(
    ("end", "words"), [("die", "was killed, as happens when memory runs out"), ("leave", "exit code 3")]
)
def test_a_process_that_dies_is_told_of(process: Process, end: str, words: str) -> None:
    for what in (end, ""):
        with pytest.raises(BackendError, match=words):
            process.call(what)


def test_closing_ends_also_what_hangs() -> None:
    hanging = Process(partial(work, []), "test")
    hanging.send("hang")
    hanging.close()
    assert hanging.exit_code == -signal.SIGTERM  # told to, not killed after it was waited for
    with pytest.raises(ProcessLookupError):
        os.kill(hanging.pid, 0)


def test_a_worker_loads_and_answers_and_ends_with_the_block() -> None:
    with workers([Target("echo", Echo), Target("broken", partial(Echo, nonsense=1))]) as started:
        assert started["echo"].load().peak_bytes == 1
        measurement = started["echo"].measure(Job(TEXT, ((Message.of("user", "Hello"),),)))
        assert [sample.output_tokens for sample in measurement.samples] == [5]
        with pytest.raises(BackendError, match="nonsense"):
            started["broken"].load()
        pids = [worker.pid for worker in started.values()]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
