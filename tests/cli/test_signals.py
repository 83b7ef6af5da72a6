"""The thread that computes while the main thread writes and listens to signals."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from backends.base import BackendError
from router.cli.signals import iterate_in_thread


def write(items: Iterator[int], written: list[int], *signals: signal.Signals) -> None:
    """Read the items, with the signals coming in before each is written."""
    for item in items:
        for number in signals:
            os.kill(os.getpid(), number)
        written.append(item)


def test_items_come_in_order_and_end() -> None:
    assert list(iterate_in_thread(iter(range(1000)))) == list(range(1000))


def test_a_failure_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise BackendError("broken")

    written: list[int] = []
    with pytest.raises(BackendError, match="broken"):
        write(iterate_in_thread(items()), written)
    assert written == [1]


def test_a_time_limit_ends_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        time.sleep(3600)

    iterator = iterate_in_thread(items(), timeout=1.5)
    assert next(iterator) == 1
    with pytest.raises(BackendError) as raised:
        next(iterator)
    assert raised.value.code == "timeout"


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_is_raised_between_two_items_never_while_one_is_written(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    before = signal.getsignal(number)
    written: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        time.sleep(3600)

    with pytest.raises(raised):
        write(iterate_in_thread(items()), written, number)
    assert written == [1]
    assert signal.getsignal(number) == before


def test_the_second_signal_is_raised_at_once() -> None:
    written: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        write(iterate_in_thread(iter([1, 2])), written, signal.SIGINT, signal.SIGINT)
    assert written == []
