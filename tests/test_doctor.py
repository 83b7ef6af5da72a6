"""What ``hybrid doctor`` finds out: the machine, the libraries, the models, and every backend tried."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

import backends
from backends import Runtime
from router.doctor import FirstToken, Trial, child, examine, machine, versions, watcher
from router.doctor.fits import every_fit
from router.doctor.machine import Disk, Machine, instruction_sets
from router.doctor.report import Report
from router.doctor.trial import Ending
from router.models import exports_folder, find
from tests import broken_backends, stand_in
from tests.processors import ARM, OLD, VNNI, processor
from tests.test_footprint import CHECKPOINTS, EXPORTS

PREPROCESSOR = "preprocessor_config.json"
LONG = 600.0  # seconds; nothing here waits for them


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """Makes backends of `tests.broken_backends` known, and the only ones that are tried."""

    def prepare(*names: str, beside: tuple[str, ...] = ()) -> None:
        place = tmp_path / "installed"
        place.mkdir()
        broken_backends.install(place, *names)
        monkeypatch.syspath_prepend(place)
        backends._plugins.cache_clear()
        monkeypatch.setattr(backends, "names", lambda: (*names, *beside))

    yield prepare
    backends._plugins.cache_clear()


def tried(name: str, **settings) -> Trial:
    settings = {"run": True, "limit_seconds": LONG, "tell": lambda _stage: None} | settings
    return watcher.attempt(name, find(), Runtime(), **settings)


def stand_in_for_scenes() -> Path:
    """A folder in the cache that passes for an export of the embedded model."""
    folder: Path = stand_in.ensure(find())
    (folder / PREPROCESSOR).write_bytes((find().folder / PREPROCESSOR).read_bytes())
    return folder


def with_script(monkeypatch: pytest.MonkeyPatch, **script: object) -> None:
    monkeypatch.setenv("HYBRID_SCRIPT", json.dumps({"tokens": [40]} | script))


def test_a_backend_loads_and_gives_a_token_about_a_text_and_a_picture() -> None:
    stages: list[str] = []
    found = tried("onnx", tell=stages.append)
    assert (found.state, found.problem, found.advice) == ("answers", None, None)
    assert found.capability == backends.capability("onnx")
    assert found.text is not None
    assert found.picture is not None
    # without the picture the embedded model would begin with "I" both times
    assert (found.text.text, found.picture.text) == ("I", "The")
    assert found.export_seconds
    assert found.load_seconds
    assert found.text.seconds > 0
    assert found.peak_bytes is not None
    assert 50_000_000 < found.peak_bytes < 400_000_000
    assert stages[0] == "onnx: starting"
    assert any(stage.startswith("onnx: exporting the model, ") for stage in stages)
    assert stages[-3:] == ["onnx: loading", "onnx: answering a text", "onnx: answering about a picture"]
    assert len(list(exports_folder().glob("scenes-*"))) == 1


def test_without_a_run_nothing_is_loaded() -> None:
    found = tried("onnx", run=False)
    assert (found.state, found.capability) == ("not run", backends.capability("onnx"))
    assert found.can_answer
    assert (found.load_seconds, found.text) == (None, None)
    assert not exports_folder().exists()


def test_a_backend_that_reads_text_only_is_shown_no_picture(install) -> None:
    install("fine")
    found = tried("fine")
    assert (found.state, found.picture) == ("answers", None)
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
    monkeypatch.setattr(watcher, "time", clock)

    def tell(stage: str) -> None:
        if stage == "scripted: answering a text":
            clock.now += LONG + 1

    # the stage is entered at the earlier time: the clock goes on only while it is told of
    found = tried("scripted", tell=tell)
    assert found.state == "failed"
    assert found.problem == "stopped after 600 s of answering a text"
    assert found.advice == "--timeout 6000 waits longer"
    assert found.load_seconds is not None
    assert not found.can_answer


def test_an_export_may_take_as_long_as_it_needs(monkeypatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr(watcher, "time", clock)

    def tell(stage: str) -> None:
        if stage.startswith("onnx: exporting"):
            clock.now += LONG + 1

    assert tried("onnx", tell=tell).state == "answers"
    assert clock.now > LONG


def test_what_a_backend_raises_is_told_with_where_it_was(install, monkeypatch) -> None:
    install("poor", "bug")
    monkeypatch.setattr(watcher, "peak_memory", lambda _process: None)  # too late for what ends at once
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
        taken = child.peak_memory(process)
        if taken is not None and taken > broken_backends.TAKEN:
            (tmp_path / "seen").touch()
        return taken

    monkeypatch.setattr(watcher, "peak_memory", look)
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


def test_a_checkpoints_backend_is_not_tried_with_an_export() -> None:
    export = stand_in_for_scenes()
    found = watcher.attempt(
        "torch", find(str(export)), Runtime(), run=True, limit_seconds=LONG, tell=lambda _stage: None
    )
    assert found.state == "unavailable"
    assert found.problem == f"it reads a checkpoint, and {export} is an export"


def test_a_model_larger_than_the_free_memory_is_not_loaded(monkeypatch, tmp_path: Path) -> None:
    order = child.Order("torch", find(), Runtime(dtype="fp32"), run=True, told=tmp_path / "told")
    monkeypatch.setattr(child, "available_memory", lambda: 400_000_000)
    problem = child._too_large(order, CHECKPOINTS)
    assert problem == "needs about 0.4 GB of memory, 0.4 GB are free"
    assert child._too_large(order, EXPORTS) is None
    assert child._too_large(replace(order, backend="scripted"), CHECKPOINTS) is None
    found = Trial.judge(
        "torch", {"capability": vars(CHECKPOINTS), "too_large": problem, "ended": True}, Ending(0), 1
    )
    assert (found.state, found.problem, found.can_answer) == ("too large", problem, False)
    monkeypatch.setattr(child, "available_memory", lambda: 500_000_000)
    assert child._too_large(order, CHECKPOINTS) is None


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


def test_a_picture_that_fails_leaves_the_text_standing() -> None:
    text = {"seconds": 0.1, "id": 40, "text": "I"}
    told = {"capability": vars(EXPORTS), "stage": "answering about a picture", "text": text}
    found = Trial.judge("onnx", told | {"error": "no memory", "ended": True}, Ending(0), 1)
    assert (found.state, found.can_answer) == ("failed", True)
    assert found.problem == "failed while answering about a picture: no memory"


def test_an_order_arrives_as_it_was_sent(tmp_path: Path) -> None:
    order = child.Order(
        "onnx", find(), Runtime(threads=2, checkpoint=tmp_path), run=True, told=tmp_path / "a"
    )
    assert child.Order.parse(order.as_json()) == order


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


def wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status


def test_the_scripted_backend_is_tried_only_where_it_has_a_script(monkeypatch) -> None:
    monkeypatch.setattr(backends, "names", lambda: ("scripted",))
    assert examine(run=False).backends == ()
    assert examine(run=False).can_answer == ()
    with_script(monkeypatch)
    (scripted,) = examine(run=False).backends
    assert scripted.state == "not run"


@pytest.mark.parametrize(
    ("text", "architecture", "present"),
    [
        (VNNI, "x86_64", {"AVX2": True, "AVX-512": True, "VNNI": True, "AVX512-BF16": False, "AMX": False}),
        (OLD, "x86_64", {"AVX2": True, "AVX-512": False, "VNNI": False, "AVX512-BF16": False, "AMX": False}),
        (ARM, "aarch64", {"dotprod": True, "i8mm": True, "bf16": True, "SVE": True}),
        (
            ARM.replace(" asimddp sve i8mm bf16", ""),
            "aarch64",
            {"dotprod": False, "i8mm": False, "bf16": False, "SVE": False},
        ),
        ("", "x86_64", dict.fromkeys(["AVX2", "AVX-512", "VNNI", "AVX512-BF16", "AMX"])),
        ("", "riscv64", {}),
    ],
)
def test_the_instruction_sets_that_matter_are_told(
    tmp_path: Path, text: str, architecture: str, present: dict[str, bool]
) -> None:
    found = instruction_sets(processor(tmp_path, text, architecture))
    assert {each.name: each.present for each in found} == present
    assert all(each.without for each in found)


def test_the_machine_is_told_as_it_is(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    found = Machine.read()
    assert (found.cores_usable, found.cores_present) == (3, os.cpu_count())
    assert found.memory_total is not None
    assert found.memory_available is not None
    assert 0 < found.memory_available <= found.memory_total
    assert found.disk.home == tmp_path / "home"
    assert found.disk.free > 0
    assert found.disk.writable
    assert not found.disk.home.exists()  # looking makes nothing


def test_what_lacks_is_told_with_what_to_do() -> None:
    well = replace(Machine.read(), memory_available=10**10, disk=Disk(Path("/a"), 10**10, writable=True))
    assert well.advice == ()
    (closed,) = replace(well, disk=Disk(Path("/a"), 10**10, writable=False)).advice
    assert closed == "nothing can be written in /a: set HYBRID_HOME to a folder of your own"
    full, busy = replace(well, memory_available=10**9, disk=Disk(Path("/a"), 10**9, writable=True)).advice
    assert full == "exporting the 2B model takes 1.9 GB of disk: make room, or set HYBRID_HOME"
    assert busy == "exporting a model takes 1 GB of memory: close other programs"


def test_a_folder_that_cannot_be_made_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o777)
    assert machine.disk(tmp_path / "a" / "b").writable
    assert not machine.disk(tmp_path / "file" / "b").writable


def test_a_version_below_its_floor_is_told_with_the_hole_and_the_command(monkeypatch) -> None:
    known = {
        "pillow": "12.9.1",
        "onnx": "1.21.0rc1",
        "torch": "2.13.0+cpu",
        "numpy": "1.0",
        "starlette": "odd",
    }

    def version(name: str) -> str:
        if name not in known:
            raise versions.PackageNotFoundError
        return known[name]

    monkeypatch.setattr(versions, "version", version)
    found = {package.name: package for package in versions.packages()}
    assert found["pillow"].problem == "below 13.0.0: a JPEG can overwrite memory (CVE-2026-112403)"
    assert found["pillow"].advice == "pip install --upgrade 'pillow>=13.0.0'"
    assert found["onnx"].advice == "pip install --upgrade 'onnx>=1.21.0'"
    assert found["torch"].problem is found["numpy"].problem is found["starlette"].problem is None
    assert found["onnxruntime"].version is None
    assert "onnxruntime-gpu" not in found


def test_what_this_package_asks_for_is_not_below_the_floors() -> None:
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8")
    for name in ("pillow", "onnx", "torch"):
        floor, _ = versions.FLOORS[name]
        assert f'"{name}>={floor}"' in project


def test_every_model_is_told_with_the_backends_that_read_it() -> None:
    usable = {"torch": CHECKPOINTS, "onnx": EXPORTS}
    stand_in_for_scenes()
    broken = exports_folder() / "broken"
    broken.mkdir()
    scenes, damaged, export = every_fit(find(), usable, Runtime(dtype="fp32"), 300_000_000)
    assert [(fit.backend, fit.verdict) for fit in scenes.fits] == [
        ("torch", "does not fit"),
        ("onnx", "fits"),
    ]
    assert [fit.backend for fit in export.fits] == ["onnx"]
    assert export.entry.source == "scenes"
    assert (damaged.problem, damaged.advice, damaged.fits) == ("damaged", "hybrid models rm broken", ())
    assert every_fit(find(), usable, Runtime(), None)[0].fits[0].verdict is None


def test_a_model_of_ones_own_comes_first_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    own = stand_in.checkpoint(tmp_path / "own")
    first, scenes = every_fit(own, {"torch": CHECKPOINTS}, Runtime(), 10**10)
    assert (first.entry.name, scenes.entry.name) == ("own", "scenes")
    assert first.problem is not None
    assert "config.json" in first.problem
    assert scenes.problem is None


def test_backends_that_begin_an_answer_differently_are_told_of() -> None:
    def began(name: str, text: str) -> Trial:
        return Trial(name, "answers", text=FirstToken(0.1, 1, "I"), picture=FirstToken(0.1, 2, text))

    def report(*trials: Trial) -> Report:
        return Report(Machine.read(), (), (), find(), trials)

    assert report(began("torch", "The"), began("onnx", "The"), began("scripted", "A")).disagreement is None
    said = report(began("torch", "The"), began("onnx", "A")).disagreement
    assert said is not None
    assert said.startswith("the answers about a picture begin differently (torch 'The', onnx 'A')")
    assert "'hybrid verify scenes --against torch'" in said
