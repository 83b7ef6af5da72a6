"""``hybrid doctor`` tries each backend in a process of its own, where it may crash or hang."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

import backends
from backends import Runtime
from backends.machine import peak_bytes
from router.doctor import Trial, examine, probe, trial
from router.doctor.trial import Ending
from router.models import exports_folder, find
from tests import broken_backends
from tests.doctor.doctoring import (
    LONG,
    install,
    is_running,
    stand_in_for_scenes,
    tried,
    wait_until,
    with_script,
)
from tests.test_footprint import CHECKPOINTS, EXPORTS

__all__ = ["install"]


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_backend_loads_and_gives_a_token_about_a_text_and_an_image() -> None:
    stages: list[str] = []
    found = tried("onnx", on_stage=stages.append)
    assert (found.state, found.problem, found.advice) == ("answers", None, None)
    assert found.capability == backends.capability("onnx")
    assert found.text is not None
    assert found.image is not None
    # without the image the embedded model would begin with "I" both times
    assert (found.text.text, found.image.text) == ("I", "The")
    assert found.export_seconds
    assert found.load_seconds
    assert found.text.seconds > 0
    assert found.peak_bytes is not None
    assert 50_000_000 < found.peak_bytes < 400_000_000
    assert stages[0] == "onnx: starting"
    assert any(stage.startswith("onnx: exporting the model, ") for stage in stages)
    assert stages[-3:] == ["onnx: loading", "onnx: answering a text", "onnx: answering about an image"]
    assert len(list(exports_folder().glob("scenes-*"))) == 1


def test_without_a_run_nothing_is_loaded() -> None:
    found = tried("onnx", run=False)
    assert (found.state, found.capability) == ("not run", backends.capability("onnx"))
    assert found.can_answer
    assert (found.load_seconds, found.text) == (None, None)
    assert not exports_folder().exists()


def test_a_backend_that_reads_text_only_is_shown_no_image(install) -> None:
    install("fine")
    found = tried("fine")
    assert (found.state, found.image) == ("answers", None)
    assert found.text is not None
    assert found.text.id == 40


def test_a_native_crash_is_named_with_its_last_words_and_the_rest_goes_on(install, monkeypatch) -> None:
    with_script(monkeypatch)
    install("crash", beside=("scripted",))
    report = examine(limit_seconds=LONG)
    crash, scripted = report.backends
    assert crash.state == "failed"
    assert crash.problem == "ended by SIGSEGV while loading (about to read address 0)"
    assert crash.advice is not None
    assert "a native library crashed" in crash.advice
    assert scripted.state == "answers"
    assert report.can_answer == ("scripted",)


def test_a_hang_is_ended_where_it_hangs(monkeypatch) -> None:
    with_script(monkeypatch, fault="hang")
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr(trial, "time", clock)

    def tell(stage: str) -> None:
        if stage == "scripted: answering a text":
            clock.now += LONG + 1

    # the stage is entered at the earlier time: the clock goes on only while it is told of
    found = tried("scripted", on_stage=tell)
    assert found.state == "failed"
    assert found.problem == "stopped after 600 s of answering a text"
    assert found.advice == "--timeout 6000 waits longer"
    assert found.load_seconds is not None
    assert not found.can_answer


def test_an_export_may_take_as_long_as_it_needs(monkeypatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr(trial, "time", clock)

    def tell(stage: str) -> None:
        if stage.startswith("onnx: exporting"):
            clock.now += LONG + 1

    assert tried("onnx", on_stage=tell).state == "answers"
    assert clock.now > LONG


def test_what_a_backend_raises_is_told_with_where_it_was(install, monkeypatch) -> None:
    install("poor", "bug")
    monkeypatch.setattr(trial, "peak_bytes", lambda _process: None)  # too late for what ends at once
    poor, bug = tried("poor"), tried("bug")
    assert poor.problem == "failed while loading: the graph has no output; export the model again"
    assert bug.problem == f"failed while loading: KeyError: '{broken_backends.TAKEN} bytes'"
    assert poor.state == bug.state == "failed"
    assert poor.peak_bytes is not None
    assert bug.peak_bytes is not None
    assert poor.peak_bytes < broken_backends.TAKEN < bug.peak_bytes


def test_what_a_process_took_is_known_though_it_crashed(install, monkeypatch, tmp_path: Path) -> None:
    install("fat")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))

    def look(process: int) -> int | None:
        taken = peak_bytes(process)
        if taken is not None and taken > broken_backends.TAKEN:
            (tmp_path / "seen").touch()
        return taken

    monkeypatch.setattr(trial, "peak_bytes", look)
    found = tried("fat")
    assert found.problem == "ended by SIGABRT while loading"
    assert found.peak_bytes is not None
    assert found.peak_bytes > broken_backends.TAKEN


def test_a_process_that_leaves_early_did_not_answer(install) -> None:
    install("leave")
    found = tried("leave")
    assert (found.state, found.can_answer) == ("failed", False)
    assert found.problem == "its process ended with code 0 while loading"


def test_scores_that_are_no_numbers_fail_after_the_load(monkeypatch) -> None:
    with_script(monkeypatch, fault="nan")
    found = tried("scripted")
    assert found.state == "failed"
    assert found.problem is not None
    assert found.problem.startswith("failed while answering a text: ")
    assert "nan" in found.problem
    assert found.load_seconds is not None


def test_a_missing_library_is_named_with_its_pip_command(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = tried("torch")
    assert found.state == "unavailable"
    assert found.problem == "torch not installed: pip install 'hybrid-router[torch]'"
    assert not found.can_answer


def test_a_backend_that_only_this_process_has_is_told_as_that(monkeypatch) -> None:
    monkeypatch.setattr(backends, "registered", {})
    backends.register(broken_backends.Mine)
    assert "mine" in backends.offered()
    found = tried("mine")
    assert found.state == "unavailable"
    assert found.problem is not None
    assert found.problem.startswith("only the process that registered it has it")


def test_a_checkpoints_backend_is_not_tried_with_an_export() -> None:
    export = stand_in_for_scenes()
    found = trial.attempt(
        "torch", find(str(export)), Runtime(), run=True, limit_seconds=LONG, on_stage=lambda _stage: None
    )
    assert found.state == "unavailable"
    assert found.problem == f"it reads a checkpoint, and {export} is an export"


def test_a_model_larger_than_the_free_memory_is_not_loaded(monkeypatch, tmp_path: Path) -> None:
    order = probe.Order("torch", find(), Runtime(dtype="fp32"), run=True, output=tmp_path / "output")
    monkeypatch.setattr(probe, "available_memory", lambda: 400_000_000)
    problem = probe.too_large(order, CHECKPOINTS)
    assert problem == "needs about 0.4 GB of memory, 0.4 GB are free"
    assert probe.too_large(order, EXPORTS) is None
    assert probe.too_large(order, replace(CHECKPOINTS, for_tests=True)) is None
    capability = {"traits": vars(CHECKPOINTS), "problem": None}
    found = Trial.judge(
        "torch", {"capability": capability, "too_large": problem, "ended": True}, Ending(0), 1
    )
    assert (found.state, found.problem, found.can_answer) == ("too large", problem, False)
    monkeypatch.setattr(probe, "available_memory", lambda: 500_000_000)
    assert probe.too_large(order, CHECKPOINTS) is None


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (signal.SIGKILL, "takes too much memory"),
        (signal.SIGILL, "the processor lacks an instruction"),
        (signal.SIGABRT, "a native library crashed"),
    ],
)
def test_what_to_do_depends_on_the_signal(number: signal.Signals, advice: str) -> None:
    found = Trial.judge("onnx", {"stage": "loading"}, Ending(-number), 1)
    assert found.problem == f"ended by {number.name} while loading"
    assert found.advice is not None
    assert advice in found.advice


def test_an_image_that_fails_leaves_the_text_standing() -> None:
    text = {"seconds": 0.1, "id": 40, "text": "I"}
    capability = {"traits": vars(EXPORTS), "problem": None}
    told = {"capability": capability, "stage": "answering about an image", "text": text}
    found = Trial.judge("onnx", told | {"error": "no memory", "ended": True}, Ending(0), 1)
    assert (found.state, found.can_answer) == ("failed", True)
    assert found.problem == "failed while answering about an image: no memory"


def test_an_order_arrives_as_it_was_sent(tmp_path: Path) -> None:
    order = probe.Order(
        "onnx", find(), Runtime(threads=2, checkpoint=tmp_path), run=True, output=tmp_path / "a"
    )
    assert probe.Order.parse(order.as_json()) == order


DOCTOR = "from router.doctor import examine; examine(limit_seconds=600)"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not told of its parent's end")
def test_a_doctor_that_is_killed_leaves_no_process_behind(install, monkeypatch, tmp_path: Path) -> None:
    install("sleep")
    number = tmp_path / "number"
    monkeypatch.setenv("SLEEPER", str(number))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(place or os.getcwd() for place in sys.path))
    only = "import backends; backends.names = lambda: ('sleep',)"
    with subprocess.Popen([sys.executable, "-c", f"{only}\n{DOCTOR}"]) as doctor:
        wait_until(lambda: number.exists() and number.read_text() != "")
        sleeper = int(number.read_text())
        assert is_running(sleeper)
        doctor.kill()
    wait_until(lambda: not is_running(sleeper))
