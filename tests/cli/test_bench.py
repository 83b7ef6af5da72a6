"""``hybrid bench`` from the command line, with the scripted backend in processes of its own."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends import Runtime
from router.bench.schedule import Outcome
from router.cli import run
from router.estimates import read_speeds
from router.models import ensure_export, find
from tests.cli.test_generate import HYBRID
from tests.server.loopback_server import serving

QUICK = ["bench", "-m", "scenes", "-p", "32", "-n", "6", "-r", "2", "--no-roofline"]
SCRIPTED = [*QUICK, "--backends", "scripted"]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("router.bench.runner.IDLE_SECONDS", 0.01)
    play(monkeypatch)


def play(monkeypatch: pytest.MonkeyPatch, **script: object) -> None:
    monkeypatch.setenv("HYBRID_SCRIPT", json.dumps({"tokens": [40, 41, 1012, 42], "delay": 0.001, **script}))


def test_the_report_is_on_stdout_and_measures_what_was_asked(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    assert run([*SCRIPTED, "--concurrency", "2", "-o", "json", "--save", str(tmp_path / "kept.md")]) == 0
    fields = json.loads(capsys.readouterr().out)
    measured = {row["workload"]: row["measured"] for row in fields["rows"]}
    assert list(measured) == [
        "text 32",
        "1 image 448x448",
        "follow-up to text 32",
        "follow-up to 1 image 448x448",
        "2 streams of text 32",
    ]
    assert measured["text 32"]["prompt_tokens"]["median"] == 32
    assert {found["output_tokens"]["low"] for found in measured.values()} == {6}  # the end token is played
    assert [measured[name]["ttft_ms"]["count"] for name in ("text 32", "2 streams of text 32")] == [2, 4]
    assert measured["text 32"]["tpot_ms"]["low"] >= 1  # the script's delay
    assert measured["follow-up to text 32"]["prompt_tokens"]["median"] > 64
    (standing,) = fields["standings"]
    assert standing["load_seconds"] > 0
    assert standing["peak_bytes"] is None or standing["peak_bytes"] > 10_000_000
    assert fields["setting"]["command"] == (
        "hybrid bench --model scenes --backends scripted --prompt-tokens 32 --output-tokens 6 --repeats 2 "
        "--concurrency 2 --no-roofline"
    )
    assert "## text 32" in (tmp_path / "kept.md").read_text()
    kept = read_speeds(find(), Runtime())["scripted"]
    assert [at for at, _ in kept.prefill] == [32]
    assert [at for at, _ in kept.decode] == [35]
    assert kept.load_seconds == standing["load_seconds"]


def test_figures_need_not_be_kept(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    assert run([*SCRIPTED, "--images", "0", "--no-record", "-o", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["workload"] for line in lines] == ["text 32", "follow-up to text 32"]
    assert read_speeds(find(), Runtime()) == {}


def test_a_backend_that_fails_or_cannot_run_has_its_reason_in_the_table(capsys, monkeypatch) -> None:
    play(monkeypatch, fault="raise", fault_at=3)
    export = ensure_export(find())
    arguments = [*QUICK, "--backends", "torch,scripted,onnx", "--images", "0"]
    arguments[2] = str(export)  # neither reads it but the third, and PyTorch's refusal needs no PyTorch
    assert run(arguments) == 0
    out = capsys.readouterr().out
    (torch,) = [line for line in out.splitlines() if line.startswith("| torch ")]
    assert re.search(r"cannot run: (it reads a checkpoint, and .* is an export|.* not installed)", torch)
    (scripted,) = [line for line in out.splitlines() if line.startswith("| scripted ")]
    assert "it reads a checkpoint" in scripted
    assert [line for line in out.splitlines() if line.startswith("| onnx ") and "int4, faithful" in line]
    assert run([*SCRIPTED, "--images", "0"]) == 5
    out, err = capsys.readouterr()
    assert "- scripted did not run: the script says to fail here" in out
    assert "nothing could be measured" in err.splitlines()[-1]


def test_what_does_not_load_has_its_reason_in_the_table(capsys, monkeypatch) -> None:
    monkeypatch.delenv("HYBRID_SCRIPT")
    assert run([*SCRIPTED, "--images", "0"]) == 5
    out, err = capsys.readouterr()
    assert "cannot run: backend 'scripted' plays the tokens in HYBRID_SCRIPT, which is not set" in out
    assert "nothing could be measured (scripted: backend 'scripted' plays" in err


WRONG = {
    "an unknown backend": (["--backends", "gpu"], 2, "no backend is named 'gpu'"),
    "a length that is none": (["-p", "many"], 2, "--prompt-tokens wants numbers from 1"),
    "no length": (["-p", ""], 2, "--prompt-tokens wants numbers from 1"),
    "a size that is none": (["--image-size", "448"], 2, "--image-size wants sizes such as 448x448"),
    "an image without pixels": (["--image-size", "0x32"], 2, "--image-size wants sizes"),
    "fewer than no images": (["--images", "-1"], 2, "--images wants numbers from 0"),
    "no streams": (["--concurrency", "0"], 2, "--concurrency wants numbers from 1"),
    "one token": (["-n", "1"], 2, "1 is not in the range"),
    "more than the context": (["-p", "4096"], 3, "the model's context is 4096"),
    "less than the template": (["-p", "2"], 2, "no prompt of 2 tokens can be written"),
    "a file of no known kind": (
        ["--save", "x.txt"],
        2,
        "--save wants a name that ends with .json, .md, .csv",
    ),
    "a plot of no known kind": (
        ["--plot", "x.doc"],
        2,
        "--plot wants a name that ends with .png, .svg, .pdf",
    ),
    "a folder that is not there": (["--save", "/no/such/x.md"], 2, "there is no folder /no/such"),
    "ratios in CSV": (["--compare", "old.json", "-o", "csv"], 2, "choose -o md or -o json"),
    "an earlier report that is not there": (["--compare", "/no/old.json"], 2, "/no/old.json cannot be read"),
    "an unknown model": (["-m", "/no/such/folder"], 4, "no model folder at '/no/such/folder'"),
    "a device for a server": (
        ["--url", "http://127.0.0.1:9", "--device", "cpu"],
        2,
        "--url measures a server",
    ),
    "an address that is none": (["--url", "127.0.0.1:9"], 5, "--url wants an address"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_before_anything_is_measured(capsys, monkeypatch, case) -> None:
    arguments, code, words = WRONG[case]
    chosen = QUICK if "--url" in arguments else SCRIPTED
    if "-m" not in arguments and "--url" not in arguments:
        monkeypatch.setattr("router.bench.process.Worker.measure", None)  # measuring would be a bug here
    assert run([*chosen, *arguments]) == code
    out, err = capsys.readouterr()
    assert words in err
    if not case.startswith("an address"):
        assert out == ""


def test_a_server_is_measured_like_a_backend(capsys) -> None:
    arguments = ["bench", "-p", "32,64", "-n", "4", "-r", "2", "--images", "2", "--image-size", "64x32"]
    with serving() as server:
        assert run([*arguments, "--url", server.url, "-o", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert [row["target"] for row in fields["rows"]] == [server.url.removeprefix("http://")] * 5
    assert [row["problem"] for row in fields["rows"]] == [None] * 5
    assert fields["rows"][0]["measured"]["output_tokens"]["median"] == 4
    assert fields["rates"] is None
    (standing,) = fields["standings"]
    assert (standing["numbers"], standing["peak_bytes"]) == ("served as small", None)
    images = [part["type"] for part in server.asked[6]["messages"][0]["content"]]
    assert images == ["image_url", "image_url", "text"]
    roles = [message["role"] for message in server.asked[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]


def test_a_model_that_is_set_for_backends_is_not_asked_of_a_server(capsys, monkeypatch) -> None:
    monkeypatch.setenv("HYBRID_MODEL", "scenes")
    quick = ["bench", "-p", "8", "-n", "4", "-r", "1", "--images", "0", "-o", "csv"]
    with serving() as server:
        assert run([*quick, "--url", server.url]) == 0
        assert {asked["model"] for asked in server.asked} == {"small"}
        assert run([*quick, "--url", server.url, "-m", "other"]) == 5
    assert "has no model 'other'" in capsys.readouterr().err


def test_a_server_and_a_backend_take_turns(capsys) -> None:
    with serving() as server:
        assert run([*SCRIPTED, "--images", "0", "--url", server.url, "-o", "csv", "--no-record"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {line["backend"] for line in lines} == {"scripted", server.url.removeprefix("http://")}
    assert {line["workload"] for line in lines} == {"text 32", "follow-up to text 32"}


def test_a_later_run_is_compared_with_an_earlier_one_and_drawn(capsys, tmp_path) -> None:
    old, drawn = tmp_path / "old.json", tmp_path / "plot.png"
    assert run([*SCRIPTED, "--images", "0", "--save", str(old)]) == 0
    capsys.readouterr()
    assert run([*SCRIPTED, "--images", "0", "-n", "7", "--compare", str(old), "--plot", str(drawn)]) == 0
    out = capsys.readouterr().out
    assert "## Against " in out
    assert re.search(r"\| text 32 +\| scripted \|( +\d+\.\d\dx \|){5}", out)
    assert "output_tokens of scripted at 'text 32' was 6, is 7" in out
    assert drawn.stat().st_size > 10_000


def test_a_plot_without_matplotlib_is_one_sentence(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run([*SCRIPTED, "--plot", str(tmp_path / "plot.png")]) == 5
    assert capsys.readouterr() == (
        "",
        "hybrid: --plot needs matplotlib: pip install 'hybrid-router[bench]'\n",
    )


def test_an_interrupted_run_prints_what_was_measured(capsys, monkeypatch) -> None:
    import router.bench.runner as bench

    whole = bench.run

    def interrupted(*arguments: object):
        for number, outcome in enumerate(whole(*arguments)):  # type: ignore[arg-type]
            if number == 4:
                raise KeyboardInterrupt
            assert isinstance(outcome, Outcome)
            yield outcome

    monkeypatch.setattr(bench, "run", interrupted)
    assert run([*SCRIPTED, "--images", "0"]) == 130
    out = capsys.readouterr().out
    assert "the run was stopped, with 2 of 6 turns not taken" in out
    assert "## text 32" in out
    assert "## follow-up" not in out


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than one that ended and was not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are read from /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_hanging_run_and_its_processes(monkeypatch, number, code) -> None:
    play(monkeypatch, fault="hang", fault_at=2)
    with subprocess.Popen(
        [*HYBRID, *SCRIPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while len(found := children(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            assert len(found) >= 2  # the backend's process, and one in which Python keeps track of resources
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()  # or the end of this block waits for one that no signal ended
    assert process.returncode == code
    assert (out, [line for line in err.splitlines() if "other processes use" not in line]) == ("", [])
    while any(map(is_running, found)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, found))


@pytest.mark.slow
def test_the_machine_is_measured_and_shares_are_told(capsys) -> None:
    arguments = ["bench", "-m", "scenes", "-p", "32", "-n", "6", "-r", "1", "--backends", "onnx,torch"]
    assert run([*arguments, "-o", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["rates"]["bandwidth"] > 1e8
    assert min(fields["rates"]["matrices"].values()) > 1e7
    shares = [row["shares"] for row in fields["rows"] if not row["problem"]]
    assert all(share["decode"] > 0 and share["prefill"] > 0 for share in shares)
