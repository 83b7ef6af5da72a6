"""The order of a benchmark: targets in turns, with the same job in a round, and none after it failed."""

from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import BackendError, RequestError
from router.bench.engine import Facts, Measurement
from router.bench.idle import IdleWatch, busy_notes, is_busy
from router.bench.schedule import Outcome, Step, load, run, steps
from router.bench.workloads import Job, Size, Workload, Writer, default_answer, default_prompts, workloads
from tests.bench.benches import IMAGE, LONG, TEXT, turn


class Fake:
    def __init__(self, log: list[tuple[str, Job]], name: str, fails_at: Workload | None = None) -> None:
        self.log, self.name, self.fails_at = log, name, fails_at

    def load(self) -> Facts:
        if self.fails_at is LONG:
            raise BackendError("no memory for it")
        return Facts(1.0)

    def measure(self, job: Job) -> Measurement:
        self.log.append((self.name, job))
        if job.workload is self.fails_at:
            raise RequestError("it reads text only")
        return turn()


def test_each_target_gets_its_turn_and_another_one_begins_each_round() -> None:
    order = steps([TEXT, LONG], ["a", "b", "c"], warmup=1, repeats=2)
    assert [step.target for step in order] == [*"abc", *"bca", *"cab"] * 2
    assert [step.repeat for step in order[:9]] == [0] * 3 + [1] * 3 + [2] * 3
    assert [step.workload for step in order] == [TEXT] * 9 + [LONG] * 9
    assert steps([TEXT], [], 1, 2) == []


def test_a_round_is_one_job_for_all_and_the_next_round_another() -> None:
    log: list[tuple[str, Job]] = []
    targets = {name: Fake(log, name) for name in "ab"}
    list(run(steps([TEXT], list(targets), 1, 2), targets, Writer(None), IdleWatch()))
    assert [name for name, _ in log] == [*"ab", *"ba", *"ab"]
    jobs = [job for _, job in log]
    assert [jobs[index] is jobs[index + 1] for index in range(5)] == [True, False, True, False, True]
    assert len({job.conversations[0][0].parts for job in jobs}) == 3


def test_what_a_target_cannot_do_is_said_once_and_the_others_go_on() -> None:
    log: list[tuple[str, Job]] = []
    targets = {"a": Fake(log, "a", fails_at=IMAGE), "b": Fake(log, "b")}
    outcomes = list(run(steps([IMAGE, TEXT], list(targets), 1, 2), targets, Writer(None), IdleWatch()))
    problems = [outcome for outcome in outcomes if outcome.problem]
    assert problems == [Outcome(Step(IMAGE, "a", 0), problem="it reads text only")]
    assert [name for name, job in log if job.workload is IMAGE] == [*"ab", "b", "b"]
    assert [name for name, job in log if job.workload is TEXT] == [*"ab", *"ba", *"ab"]


def test_what_does_not_load_is_told_with_its_reason() -> None:
    told: list[str] = []
    facts, problems = load({"a": Fake([], "a", fails_at=LONG), "b": Fake([], "b")}, told.append)
    assert facts == {"b": Facts(1.0)}
    assert problems == {"a": "no memory for it"}
    assert told == ["a: loading", "b: loading"]


def test_the_workloads_that_are_asked_for() -> None:
    found = workloads([128, 512], 32, [Size(448, 448), Size(64, 32)], [1, 2], [1, 4])
    assert [workload.name for workload in found] == [
        "text 128",
        "text 512",
        "1 image 448x448",
        "2 images 448x448",
        "1 image 64x32",
        "2 images 64x32",
        "follow-up to text 128",
        "follow-up to 1 image 448x448",
        "4 streams of text 128",
    ]
    assert {workload.output_tokens for workload in found} == {32}
    without = workloads([128], 32, [Size(448, 448)], [0], [1])
    assert [workload.name for workload in without] == ["text 128", "follow-up to text 128"]
    assert found[-1].description.endswith("32 tokens of answer, 4 requests at the same time")
    assert (default_prompts(4096), default_answer(4096)) == ((128, 512), 32)
    assert (default_prompts(262144), default_answer(262144)) == ((128, 1024), 64)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A /proc and a clock of our own; times in hundredths of a second."""
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def at(seconds: float, busy: int, idle: int, **own: int) -> None:
        now[0] = seconds
        (tmp_path / "stat").write_text(f"cpu  {busy - 30} 10 10 {idle} 500 4 3 3 0 0\ncpu0 1 2 3\n")
        for name, ticks in own.items():
            folder = tmp_path / name.strip("_")
            folder.mkdir(exist_ok=True)
            (folder / "stat").write_text(f"1 (a ) name) S {' '.join(['0'] * 10)} {ticks - 5} 5 0 0")

    return at


def test_others_use_what_is_not_ours(proc, tmp_path: Path) -> None:
    proc(0, 1000, 5000, self=100, _7=200)
    watch = IdleWatch([7], tmp_path)
    proc(2, 1000 + 250, 5000, self=100 + 20, _7=200 + 130)
    assert watch.lap("text") == pytest.approx((2.5 - 0.2 - 1.3) / 2)
    proc(4, 1000 + 250 + 10, 5400, self=100 + 20 + 10, _7=200 + 130)
    assert watch.lap("image") == pytest.approx(0)
    (tmp_path / "7" / "stat").unlink()  # a process that ended takes nothing back
    proc(6, 1000 + 250 + 10, 5800, self=100 + 20 + 10)
    assert watch.lap("later") == pytest.approx(0)
    assert set(watch.laps) == {"text", "image", "later"}
    (tmp_path / "stat").write_text("")
    assert watch.lap("nowhere") is None


def test_a_busy_machine_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert not is_busy(None)
    assert not is_busy(0.09)
    assert is_busy(0.11)
    assert busy_notes(0.01, {"": 2.0, "text 128": 0.02, "text 512": None}, 2) == ()
    before, during = busy_notes(0.5, {"text 128": 0.7, "text 512": 1.25, "text 9": 0.0}, 2)
    assert before == "just before the run other processes used 0.50 of 2 cores"
    assert during.startswith("during 2 workloads, most at 'text 512', other processes used 1.25 of 2 cores")


def test_workloads_that_differ_are_not_confused() -> None:
    assert replace(TEXT, streams=2).name == "2 streams of text 128"
    assert not replace(TEXT, streams=2).is_plain
    assert not replace(TEXT, follow_up=True).is_plain
    assert TEXT.is_plain
