"""``hybrid export`` and ``hybrid verify``, in this process and as processes of their own."""

import errno
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.store import Manifest, MatrixError, Recipe, locked, verify_folder
from router.cli import run
from router.cli.terminal import size
from router.models import export_place, exports_folder, find
from tests import stand_in
from tests.stand_in import listing

HYBRID = [sys.executable, "-c", "from router.cli import main; main()"]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "home"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports by the stand-in."""
    monkeypatch.setattr("backends.export.export", stand_in.export)


def exported(capsys, *arguments: str) -> tuple[Path, str]:
    assert run(["export", "scenes", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    return Path(out.strip()), err


def told(place: Path) -> str:
    """The size of an export as people are told it."""
    return size(sum(file.stat().st_size for file in place.iterdir() if file.name != "manifest.json"))


def test_the_path_is_on_stdout_and_the_summary_on_stderr(quick, capsys) -> None:
    place, err = exported(capsys)
    assert place.parent == exports_folder()
    assert verify_folder(place) == []
    lines = err.splitlines()
    assert re.fullmatch(rf"{told(place)}, exported in \d+\.\d s", lines[0])
    assert lines[1:] == [
        "language, 4 bits, blocks of 32: 1 matrix, relative error at most 0.0700 (layers.0.q_proj)",
        "head and embeddings, 8 bits, blocks of 32: 1 matrix, relative error at most 0.0060 (lm_head)",
    ]
    again, err = exported(capsys)
    assert again == place
    assert err.startswith(f"{told(place)}, exported before\n")


def test_a_calibrated_export_says_what_that_gave(capsys, monkeypatch) -> None:
    def calibrated(source, out, recipe, progress, samples):
        assert len(samples.prompts) > 20
        stand_in.export(source, out, recipe, progress)
        return (
            MatrixError("layers.0", 4, 128, 0.1, 0.02, 0.06),
            MatrixError("layers.1", 4, 128, 0.1, 0.04, 0.1),
        )

    monkeypatch.setattr("backends.export.export", calibrated)
    _, err = exported(capsys, "--recipe", "fast", "--calibrate")
    assert err.splitlines()[-1] == (
        "calibrated: outputs of these matrices are off by 0.0300 in the mean, by 0.0800 if rounded plainly"
    )


def copied(folder: Path) -> Path:
    """The embedded model in a folder of its own."""
    ours = shutil.ignore_patterns("*.py", "__pycache__", "samples")
    return Path(shutil.copytree(find().folder, folder, ignore=ours))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", None, "tokenizer.json cannot be read"),
        ("tokenizer.json", b"{}", "is not a tokenizer"),
        ("preprocessor_config.json", None, "no image settings"),
        ("preprocessor_config.json", b'{"patch_size": 14}', "patch_size must be 16"),
        ("processor_config.json", b'{"image_processor": {}}', "patch_size must be 16"),
        ("chat_template.jinja", None, "no chat template"),
        ("chat_template.jinja", b"{% if", "chat_template.jinja"),
        ("generation_config.json", b"{", "generation_config.json"),
    ],
)
def test_what_could_not_answer_is_refused_before_its_weights_are_read(
    capsys, monkeypatch, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    def reads(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("backends.export.export", reads)
    folder = copied(tmp_path / "model")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert run(["export", str(folder), str(tmp_path / "out")]) == 4
    err = capsys.readouterr().err
    assert words in err
    assert str(folder) in err
    assert not (tmp_path / "out").exists()
    run(["export", str(copied(tmp_path / "whole")), str(tmp_path / "out")])
    assert "weights were read" in capsys.readouterr().err


def test_verify_says_what_an_export_lacks_for_an_answer(quick, capsys, monkeypatch) -> None:
    place, _ = exported(capsys)
    assert run(["verify", str(place)]) == 0
    capsys.readouterr()
    monkeypatch.setattr(stand_in, "COPIED", ("config.json", "tokenizer.json", "preprocessor_config.json"))
    exported(capsys, "--force")
    assert run(["verify", str(place)]) == 4
    assert f"{place} has no chat template" in capsys.readouterr().err


def test_force_makes_it_anew(quick, capsys) -> None:
    place, _ = exported(capsys)
    before = (place / "weights.data").stat().st_ino
    assert "exported in" in exported(capsys, "--force")[1]
    assert (place / "weights.data").stat().st_ino != before
    assert listing(place.parent) == [place.name]


def test_the_options_make_the_recipe(quick, capsys) -> None:
    options = (
        "--precision int4 --recipe fast --vision-precision w8 --block-size 64 --symmetric --no-search "
        "--head-bits 4 --int8-layers 0,3 --accuracy-level 0 --calibrate"
    )
    place, _ = exported(capsys, *options.split())
    wanted = Recipe("int4", "fast", 64, True, False, 0, 4, frozenset({0, 3}), "w8", calibrate=True)
    assert Manifest.read(place).recipe == wanted
    plain, _ = exported(capsys)
    assert Manifest.read(plain).recipe == Recipe()
    short, _ = exported(capsys, "--shortlist", "32")
    assert Manifest.read(short).recipe == Recipe(shortlist=32)


def test_the_environment_sets_options(quick, capsys, monkeypatch) -> None:
    monkeypatch.setenv("HYBRID_RECIPE", "fast")
    assert Manifest.read(exported(capsys)[0]).recipe.recipe == "fast"
    assert Manifest.read(exported(capsys, "--recipe", "faithful")[0]).recipe.recipe == "faithful"


def test_an_export_can_go_elsewhere(quick, capsys, tmp_path: Path) -> None:
    out = tmp_path / "here"
    assert exported(capsys, str(out))[0] == out
    assert run(["export", "scenes", str(out), "--precision", "int8"]) == 2
    assert "add --force to replace it" in capsys.readouterr().err
    exported(capsys, str(out), "--precision", "int8", "--force")
    assert Manifest.read(out).recipe.precision == "int8"
    assert run(["export", str(out)]) == 2
    assert "is an export already" in capsys.readouterr().err


def test_a_folder_that_is_no_export_is_kept_even_with_force(quick, capsys, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a")
    assert run(["export", "scenes", str(tmp_path / "photos"), "--force"]) == 2
    assert "is not an export" in capsys.readouterr().err
    assert listing(tmp_path / "photos") == ["a.jpg"]


WRONG = {
    "an unknown source": (["/no/such/folder"], 4, "no model folder at '/no/such/folder'"),
    "a folder that is no checkpoint": (["tests"], 4, "has no config.json"),
    "a hub id offline": (["org/name", "--offline"], 4, "must not be asked (offline)"),
    "an unknown precision": (["scenes", "--precision", "int3"], 2, "'int3' is not one of"),
    "a block size that is none": (["scenes", "--block-size", "24"], 2, "block_size must be one of"),
    "a shortlist of 4 bits": (
        ["scenes", "--head-bits", "4", "--shortlist", "9"],
        2,
        "whose upper 4 are read first",
    ),
    "layers that are none": (["scenes", "--int8-layers", "a"], 2, "--int8-layers wants numbers"),
    "no source": ([], 2, "Missing argument 'SOURCE'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_and_an_exit_code(capsys, home: Path, monkeypatch, case: str) -> None:
    monkeypatch.chdir(ROOT)
    arguments, code, words = WRONG[case]
    assert run(["export", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert not home.exists()


def test_a_full_disk_is_exit_code_6(capsys, monkeypatch) -> None:
    def full(source, out, recipe, progress):
        (out / "weights.data").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("backends.export.export", full)
    assert run(["export", "scenes"]) == 6
    assert re.search(r"the disk is full: .* needs \d+ bytes, \d+ are free", capsys.readouterr().err)
    assert listing(exports_folder()) == []


def test_no_wait_is_exit_code_6_while_another_exports(quick, capsys) -> None:
    place, _ = exported(capsys)
    with locked(place.with_name(f".{place.name}.lock")):
        assert run(["export", "scenes", "--force", "--no-wait"]) == 6
    assert "another process is writing" in capsys.readouterr().err


def test_sizes_are_told_in_three_digits() -> None:
    counts = (0, 999, 1000, 23_456, 999_499, 999_999, 5_997_899, 1_234_000_000, 17_000_000_000, 10**13)
    wanted = ["0 B", "999 B", "1 kB", "23.5 kB", "999 kB", "1 MB", "6 MB", "1.23 GB", "17 GB", "10000 GB"]
    assert [size(count) for count in counts] == wanted


SLOW = """
import sys
import backends.export
from tests import stand_in
backends.export.export = lambda *given: stand_in.export(*given, pause=0.05)
from router.cli import main
sys.argv[0] = "hybrid"
main()
"""


def start(*arguments: str, **settings) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", SLOW, *arguments], cwd=ROOT, **settings)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing(number: int, code: int) -> None:
    with start("export", "scenes", stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not list(exports_folder().glob(".*.part/weights.data")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, b"")
    assert listing(exports_folder()) == []


def terminal_output(*arguments: str) -> str:
    """What a command shows when stderr is a terminal."""
    mine, its = pty.openpty()
    with start(
        *arguments, stderr=its, stdout=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "120"}
    ) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                data = os.read(mine, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not data:
                break
            shown += data
        assert process.wait(timeout=30) == 0
    os.close(mine)
    return shown.decode()


def test_on_a_terminal_tensor_names_and_bytes_go_by(home: Path) -> None:
    shown = terminal_output("export", "scenes")
    assert "weights.data" in shown
    assert re.search(r"\d+(\.\d+)?/206\.0 kB", shown)
    assert re.search(r"kB, exported in \d+\.\d s\r\nlanguage, 4 bits", shown)


def test_a_second_process_says_that_it_waits_and_goes_on_when_it_may() -> None:
    place = export_place(find(), Recipe())
    place.parent.mkdir(parents=True)
    pipe = subprocess.PIPE
    with locked(place.with_name(f".{place.name}.lock")):
        process = start("export", "scenes", stdout=pipe, stderr=pipe)
        assert process.stderr is not None
        waits = process.stderr.readline()
    out, _ = process.communicate(timeout=60)
    assert waits == b"hybrid: another process is exporting scenes; waiting for it\n"
    assert (process.returncode, out) == (0, f"{place}\n".encode())
    assert verify_folder(place) == []
