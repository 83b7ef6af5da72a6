"""``hybrid doctor``: a page or one JSON object on stdout, and an exit code for whether anything works."""

import json
import platform
import re
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from huggingface_hub import constants

import backends
from backends import Traits
from router.cli import doctor_page, run
from router.cli.doctor_page import page
from router.doctor import DoctorReport, Fit, Headroom, ModelFits, Package, Trial, examine
from router.estimates import Footprint
from router.models import describe, find
from router.types import capability_fields
from tests.cli.test_generate import HYBRID
from tests.doctor.doctoring import install, is_running, wait_until, with_script

__all__ = ["install"]

GIGA = 10**9


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted backend is the only one."""
    with_script(monkeypatch)
    monkeypatch.setattr(backends, "names", lambda: ("scripted",))


@pytest.fixture(scope="module")
def looked() -> DoctorReport:
    """This machine, with nothing run."""
    return examine(run=False)


def printed(capsys, *arguments: str, code: int = 0) -> str:
    assert run(["doctor", *arguments]) == code
    text: str = capsys.readouterr().out
    return text


def test_every_backend_answers_here(capsys) -> None:
    assert run(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    took = r"loads in [\d.]+ m?s; first token after [\d.]+ m?s \('I'\); with an image after"
    whole = " ".join(out.split())
    for name in ("torch", "onnx"):
        assert re.search(rf"✓ {name} {took} [\d.]+ m?s \('The'\); memory at most [\d.]+ MB", whole)
    _, _, names = out.rpartition("\nCan answer here: ")
    assert {"torch", "onnx"} <= set(names.strip().split(", "))
    assert "scripted" not in out
    assert "begin differently" not in out


def test_json_is_one_whole_object(one, capsys) -> None:
    told = json.loads(printed(capsys, "--json"))
    assert set(told) == {
        "machine", "packages", "models", "model", "backends", "can_answer", "disagreement",
    }  # fmt: skip
    assert set(told["machine"]) == {
        "system", "python", "processor", "architecture", "instruction_sets", "cores_usable", "cores_present",
        "memory_total", "memory_available", "disk", "advice",
    }  # fmt: skip
    assert told["machine"]["python"] == platform.python_version()
    assert set(told["machine"]["disk"]) == {"home", "free", "writable"}
    assert told["model"]["name"] == "scenes"
    (scripted,) = told["backends"]
    assert set(scripted) == {field.name for field in fields(Trial)}
    assert scripted["capability"] == capability_fields(Traits(True, for_tests=True), None)
    assert scripted["text"]["id"] == scripted["image"]["id"] == 40
    assert set(scripted["text"]) == {"seconds", "id", "text"}
    assert told["can_answer"] == ["scripted"]
    assert {package["name"] for package in told["packages"]} >= {"hybrid-router", "onnxruntime", "torch"}


def test_json_tells_what_each_model_needs(capsys, monkeypatch) -> None:
    monkeypatch.setattr(backends, "names", lambda: ("torch", "onnx"))
    (scenes,) = json.loads(printed(capsys, "--json", "--no-run"))["models"]
    assert (scenes["entry"]["name"], scenes["problem"]) == ("scenes", None)
    for fit in scenes["fits"]:
        need = fit["need"]
        assert need.pop("total") == sum(need.values())
        assert set(need) == {field.name for field in fields(Footprint)}
        assert fit["verdict"] == "fits"
    assert [fit["backend"] for fit in scenes["fits"]] == ["torch", "onnx"]


def test_exit_code_5_where_no_backend_can_answer(install, capsys) -> None:
    install("crash")
    assert run(["doctor"]) == 5
    out, err = capsys.readouterr()
    assert err == "hybrid: no backend can answer here; beside each it says why\n"
    assert "✗ crash  ended by SIGSEGV while loading (about to read address 0)" in out
    assert "           → a native library crashed" in out
    assert "Can answer here" not in out
    assert json.loads(printed(capsys, "--json", code=5))["can_answer"] == []
    assert "✓ crash  can be used\n" in printed(capsys, "--no-run")


def test_a_backend_that_raises_does_not_stop_the_others(install, capsys) -> None:
    install("poor", "fine")
    out = printed(capsys)
    assert "✗ poor  failed while loading: the graph has no output; export the model again" in out
    assert "; reads text only; " in out
    assert out.endswith("\nCan answer here: fine\n")


def test_a_model_that_is_not_here_is_told_and_not_fetched(capsys) -> None:
    assert run(["doctor", "-m", "org/name"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "the hub must not be asked (offline); run 'hybrid models pull org/name'" in err


def test_options_are_checked(capsys) -> None:
    assert run(["doctor", "--timeout", "0"]) == 2
    assert run(["doctor", "--threads", "0"]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_ctrl_c_ends_it_and_what_it_tries(install, monkeypatch, tmp_path: Path) -> None:
    number = tmp_path / "number"
    install("sleep")
    monkeypatch.setenv("SLEEPER", str(number))
    monkeypatch.setenv("PYTHONPATH", ":".join(place or "." for place in sys.path))
    only = "import backends; backends.names = lambda: ('sleep',)\n"
    command = [sys.executable, "-c", only + HYBRID[-1], "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as doctor:
        wait_until(lambda: number.exists() and number.read_text() != "")
        doctor.send_signal(signal.SIGINT)
        assert doctor.communicate() == (b"", b"")
    assert doctor.returncode == 130
    wait_until(lambda: not is_running(int(number.read_text())))


def fitting(name: str, *verdicts: str) -> ModelFits:
    need = Footprint(0, GIGA, 0, 0)
    fits = tuple(Fit(f"b{n}", need, verdict) for n, verdict in enumerate(verdicts))  # type: ignore[arg-type]
    return ModelFits(replace(describe(find()), name=name), fits)


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        (["fits", "fits"], "✓ model  6 MB checkpoint; takes 1 GB with b0 (fits), 1 GB with b1 (fits)"),
        (
            ["fits", "does not fit"],
            "! model  6 MB checkpoint; takes 1 GB with b0 (fits), 1 GB with b1 (does not fit)",
        ),
        (["tight"], "! model  6 MB checkpoint; takes 1 GB with b0 (tight)"),
        (["does not fit"], "✗ model  6 MB checkpoint; takes 1 GB with b0 (does not fit)"),
        ([None], "! model  6 MB checkpoint; takes 1 GB with b0 (free memory unknown)"),
        ([], "- model  6 MB checkpoint, which no backend here reads"),
    ],
)
def test_a_mark_says_whether_a_model_fits(looked: DoctorReport, verdicts: list[str], line: str) -> None:
    shown = page(replace(looked, models=(fitting("model", *verdicts),)))
    assert line.replace("  ", " ") in " ".join(shown.split())


def test_problems_come_with_what_to_do(looked: DoctorReport) -> None:
    headroom = Headroom(GIGA, replace(looked.headroom.disk, writable=False))
    packages = (Package("pillow", "1.0", "below 13.0.0: a hole", "pip install"), Package("torch", None))
    damaged = ModelFits(fitting("model").entry, (), "damaged", "hybrid models rm model")
    shown = page(replace(looked, headroom=headroom, packages=packages, models=(damaged,)))
    assert "✗ pillow  1.0, below 13.0.0: a hole\n            → pip install\n" in shown
    assert "  - torch   not installed\n" in shown
    assert "✗ model  6 MB checkpoint: damaged\n           → hybrid models rm model\n" in shown
    assert "  !         exporting a model takes 1 GB of memory: close other programs\n" in shown
    assert "set HYBRID_HOME to a folder of your own" in " ".join(shown.split())


def test_a_page_is_as_wide_as_80_columns_where_there_is_no_terminal(looked: DoctorReport) -> None:
    long = fitting("a-model-of-a-very-long-name-int4-faithful-75af1db2af", *["fits"] * 8)
    shown = page(replace(looked, models=(long,)))
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


class Terminal:
    """A stdout of some encoding that is, or is not, a terminal."""

    def __init__(self, encoding: str, on_terminal: bool) -> None:
        self.encoding = encoding
        self.on_terminal = on_terminal

    def isatty(self) -> bool:
        return self.on_terminal


def test_marks_are_those_that_the_output_can_show(looked: DoctorReport, monkeypatch) -> None:
    monkeypatch.setattr(doctor_page.sys, "stdout", Terminal("latin-1", on_terminal=False))
    shown = page(replace(looked, models=(ModelFits(fitting("model").entry, (), "damaged", "do"),)))
    shown.encode("ascii")
    assert "  x model" in shown
    assert "  + memory" in shown
    assert "-> do" in shown


def test_a_terminal_has_colours_and_its_own_width(looked: DoctorReport, monkeypatch) -> None:
    monkeypatch.setattr(doctor_page.sys, "stdout", Terminal("utf-8", on_terminal=True))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    long = replace(looked, models=(fitting("model", *["fits"] * 20),))
    assert "  \x1b[32m✓\x1b[0m memory" in page(long)
    monkeypatch.setenv("NO_COLOR", "1")
    assert 90 < max(map(len, page(long).splitlines())) <= doctor_page.WIDEST
    assert "\x1b" not in page(long)
