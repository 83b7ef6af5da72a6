"""A run that starts its processes anew: every start takes all repeats, and the report has those of all."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from backends.base import BackendError
from router.bench import runner
from router.bench.contenders import Contender
from router.bench.engine import Facts, Measurement
from router.bench.idle import IdleWatch
from router.bench.process import Target
from router.bench.runner import Bench, BenchPlan
from router.bench.workloads import Job, Writer
from router.models import Listener
from tests.bench.benches import SETTING, TEXT, turn


class Played:
    """A process that is not one; ``start`` tells which of a target's it is."""

    pid = 0

    def __init__(self, start: int, fails_to_load: bool) -> None:
        self.start, self.fails_to_load, self.jobs = start, fails_to_load, 0

    def load(self) -> Facts:
        if self.fails_to_load:
            raise BackendError("no memory for it")
        return Facts(1.0 + self.start, peak_bytes=1)

    def measure(self, job: Job) -> Measurement:
        self.jobs += 1
        return turn()


class Started:
    """Stands for `router.bench.process.workers`, and keeps what it started; one block at a time."""

    def __init__(self, fails_at: tuple[int, str] | None) -> None:
        self.fails_at, self.all, self.open = fails_at, [], False

    @contextmanager
    def __call__(self, targets: Sequence[Target]) -> Iterator[dict[str, Played]]:
        assert not self.open, "the processes before have ended"
        start = len(self.all)
        self.all.append({one.name: Played(start, self.fails_at == (start, one.name)) for one in targets})
        self.open = True
        yield self.all[-1]
        self.open = False


def started(monkeypatch: pytest.MonkeyPatch, starts: int, fails_at: tuple[int, str] | None = None):
    monkeypatch.setattr(runner, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(runner, "workers", found := Started(fails_at))
    told: list[tuple[str, int, int]] = []
    plan = BenchPlan(
        setting=replace(SETTING, repeats=2, warmup=1, starts=starts),
        contenders=tuple(Contender(name, make=lambda: None) for name in "ab"),
        workloads=(TEXT,),
        writer=Writer(None),
        config=None,
        roofline=False,
    )
    run = Bench(plan, Listener(progress=lambda *what: told.append(what), notice=lambda text: None))
    run.run()
    return found.all, run.report(), [(done, total) for _, done, total in told if total]


def test_each_start_takes_all_repeats_and_the_report_counts_them_together(monkeypatch) -> None:
    processes, report, told = started(monkeypatch, starts=3)
    assert [{name: one.jobs for name, one in each.items()} for each in processes] == [{"a": 3, "b": 3}] * 3
    assert [row.measured["ttft_ms"].count for row in report.rows] == [6, 6]
    assert told == [(done, 18) for done in range(1, 19)]
    assert report.setting.described == "3 times 2 repeats, each time in new processes"
    assert [one.load_seconds for one in report.standings] == [1.0, 1.0]  # the first, which found nothing warm


def test_one_busy_start_of_several_is_noted(monkeypatch) -> None:
    laps = iter([{"text 128": 1.5}, {"text 128": 0.0}, {"text 128": None}])

    class Watched(IdleWatch):
        def __init__(self, pids: Iterable[int] = ()) -> None:
            super().__init__()
            self.laps = {} if pids == () else next(laps)

        def lap(self, name: str) -> None:
            """Others are as the script says."""

    monkeypatch.setattr(runner, "IdleWatch", Watched)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    _, report, _ = started(monkeypatch, starts=3)
    assert [note for note in report.notes if "during 'text 128' other processes used 1.50 of" in note]


def test_one_start_is_the_usual(monkeypatch) -> None:
    processes, report, told = started(monkeypatch, starts=1)
    assert len(processes) == 1
    assert [row.measured["ttft_ms"].count for row in report.rows] == [2, 2]
    assert told[-1] == (6, 6)
    assert report.setting.described == "2 repeats"


def test_what_loads_only_once_keeps_its_figures_and_says_what_failed(monkeypatch) -> None:
    processes, report, told = started(monkeypatch, starts=2, fails_at=(1, "b"))
    assert [each["b"].jobs for each in processes] == [3, 0]
    assert [row.measured["ttft_ms"].count for row in report.rows] == [4, 2]
    assert [one.problem for one in report.standings] == [None, "no memory for it"]
    assert told[-1] == (9, 9)
