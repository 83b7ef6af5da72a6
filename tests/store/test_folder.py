"""A folder under its name is whole or absent: killed writers, full disks, renames."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.base import BackendError
from backends.export import sizes
from backends.store import Manifest, check_space, remove_leftovers, verify_folder, write_folder
from backends.store import folder as folders
from router.models import Model, export_to, exports_folder, find
from tests import stand_in
from tests.stand_in import INT4, INT8, ensure, listing

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return stand_in.checkpoint(tmp_path / "source")


def kills(tmp_path: Path, model: Model, count: int, *more: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.export_kills", str(model.folder), str(count), *more],
        env=os.environ | {"HYBRID_HOME": str(tmp_path / "kills"), "OPENBLAS_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts: dict = json.loads(done.stdout)
    print(counts)
    return counts


@pytest.mark.parametrize(
    ("count", "way"),
    [
        (20, "whole"),
        pytest.param(200, "whole", marks=pytest.mark.slow),
        pytest.param(200, "real", marks=pytest.mark.slow),
    ],
)
def test_killed_exports_leave_no_broken_model_and_no_litter(
    model: Model, tmp_path: Path, count: int, way: str
) -> None:
    counts = kills(tmp_path, find() if way == "real" else model, count, way)
    assert (counts["broken"], counts["leftovers"], counts["damages"]) == (0, [], [])
    assert counts["kills"] == count  # of processes that were at work
    assert counts["left"] > count // 2  # there was litter to remove


def test_control_the_same_kills_break_a_model_that_is_written_in_place(model: Model, tmp_path: Path) -> None:
    assert kills(tmp_path, model, 10, "naive")["broken"] > 0


def test_litter_of_another_name_is_left_alone_outside_the_cache(tmp_path: Path) -> None:
    for name in (".a.1.part", ".b.1.part", ".a.lock", "a"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path, "a")
    assert listing(tmp_path) == [".a.lock", ".b.1.part", "a"]


def fails(error: BaseException):
    def export(source, out, recipe, progress):
        (out / "weights.data").write_bytes(bytes(1000))
        raise error

    return export


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), BackendError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), BackendError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (BackendError("bad weights"), BackendError),
    ],
)
def test_an_export_that_fails_leaves_the_old_one_and_nothing_else(model: Model, error, raised) -> None:
    place = ensure(model)
    with pytest.raises(raised) as caught:
        export_to(place, model, INT8, force=True, exporter=fails(error))
    full = isinstance(error, OSError) and error.errno != errno.EIO
    assert (getattr(caught.value, "code", "") == "disk_full") == full
    assert verify_folder(place) == []
    assert Manifest.read(place).recipe == INT4
    assert listing(place.parent) == [place.name]


def test_too_little_free_space_is_told_with_the_bytes_before_anything_is_written(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(BackendError, match=f"needs {int(free * 1.1)} bytes") as raised:
        check_space(tmp_path / "target", free)
    assert raised.value.code == "disk_full"
    check_space(tmp_path / "target", free // 2)
    log = tmp_path / "log"
    monkeypatch.setattr(sizes, "OVERHEAD", free)
    with pytest.raises(BackendError, match="the disk is full"):
        ensure(model, exporter=stand_in.counting(log))
    assert not log.exists()
    assert listing(exports_folder()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that holds one export of the stand-in and no second one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "hybrid-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_leaves_the_old_export(model: Model, small_disk: Path, monkeypatch) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(small_disk))
    monkeypatch.setattr("backends.export.sizes.estimate", lambda *_: 1)  # the check before would refuse
    place = ensure(model)
    with pytest.raises(BackendError, match="the disk is full") as raised:
        ensure(model, INT8)
    assert raised.value.code == "disk_full"
    assert verify_folder(place) == []
    assert listing(place.parent) == [place.name]


LIMITED = """
import sys
from pathlib import Path
from backends.base import BackendError
from backends.store import Recipe
from router.models import Model, export_to
from tests import stand_in
import resource

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
model = Model("source", Path(sys.argv[1]))
try:
    export_to(Path(sys.argv[2]), model, Recipe(), force=True, exporter=stand_in.export)
except BackendError as error:
    print(error.code)
"""


def test_a_file_that_may_not_grow_is_a_full_disk(model: Model) -> None:
    place = ensure(model)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(model.folder), str(place)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "disk_full\n"
    assert verify_folder(place) == []
    assert listing(place.parent) == [place.name]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_where_names_cannot_be_swapped_a_death_between_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(folders, "exchange", lambda *_: False)
    target = tmp_path / "target"

    def write(text: str):
        return lambda part: (part / "file").write_text(text)

    def put(text: str, keep: bool = False) -> bool:
        return write_folder(target, write(text), bytes_needed=1, keep=lambda _: keep)

    put("old")
    put("new")
    assert (target / "file").read_text() == "new"
    assert listing(tmp_path) == ["target"]
    # what a process leaves that dies after the first rename, or after the second
    shutil.copytree(target, tmp_path / ".target.old")
    if moment == "before":
        shutil.rmtree(target)
    assert not put("newer", keep=True)
    assert (target / "file").read_text() == "new"
    assert listing(tmp_path) == ["target"]


def test_names_with_patterns_in_them_are_only_names(tmp_path: Path) -> None:
    (tmp_path / ".ab.1.part").mkdir()
    write_folder(tmp_path / "[ab]*", lambda part: None, bytes_needed=1, keep=lambda _: False)
    assert listing(tmp_path) == [".ab.1.part", "[ab]*"]
