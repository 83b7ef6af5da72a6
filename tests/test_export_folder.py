"""A folder under its name is whole or absent: killed writers, several at once, full disks, damaged caches."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.base import BackendError, RequestError
from backends.export import folder as folders
from backends.export import sizes
from backends.export.checks import verify
from backends.export.folder import check_space, remove_leftovers, write_folder
from backends.export.lock import lock_folder, locked, remove_abandoned
from backends.export.manifest import Manifest
from backends.export.recipe import Recipe
from router.models import Listener, Model, ensure_export, export_to, exports_folder, find, remove_export
from router.models.identity import export_name
from tests import stand_in
from tests.test_models import weights

ROOT = Path(__file__).parent.parent
INT4, INT8 = Recipe(), Recipe("int8")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(weights())
    return Model("source", source)


def ensure(model: Model, recipe: Recipe = INT4, **settings) -> Path:
    return ensure_export(model, recipe, exporter=settings.pop("exporter", stand_in.export), **settings)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def kills(tmp_path: Path, model: Model, count: int, *more: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.export_kills", str(model.folder), str(count), *more],
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


def test_an_export_is_made_once_and_then_found(model: Model, tmp_path: Path) -> None:
    log = tmp_path / "log"
    exporter = stand_in.counting(log)
    places = {ensure(model, exporter=exporter) for _ in range(3)}
    assert len(log.read_text().splitlines()) == 1
    (place,) = places
    assert place.parent == exports_folder()
    assert verify(place) == []
    assert Manifest.read(place).matrices == stand_in.MATRICES
    assert listing(place.parent) == [place.name]


def test_another_recipe_is_another_export(model: Model) -> None:
    assert ensure(model, INT4) != ensure(model, INT8)
    assert len(listing(exports_folder())) == 2


def test_a_changed_checkpoint_is_exported_anew(model: Model) -> None:
    first = export_name(model, INT4)
    assert export_name(model, INT4) == first
    (model.folder / "chat_template.jinja").write_text("{{ messages }}")
    second = export_name(model, INT4)
    (model.folder / "config.json").write_text('{"a": 1}')
    assert len({first, second, export_name(model, INT4)}) == 3


def test_the_time_of_a_large_weights_file_counts(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.models.identity._READ", 8)
    first = export_name(model, INT4)
    os.utime(model.folder / "model.safetensors", (1, 1))
    assert export_name(model, INT4) != first


def test_a_pulled_model_is_known_by_its_commit_alone(model: Model, tmp_path: Path) -> None:
    one = Model("org/name", model.folder, "0" * 40)
    moved = Model("org/name", tmp_path, "0" * 40)
    assert export_name(one, INT4) == export_name(moved, INT4)
    assert export_name(one, INT4) != export_name(Model("org/name", model.folder, "1" * 40), INT4)


CHILD = """
import sys
from pathlib import Path
from backends.export.recipe import Recipe
from router.models import Listener, Model, ensure_export
from tests import stand_in

listener = Listener(notice=print)
exporter = stand_in.counting(Path(sys.argv[2]), pause=0.02)
print(ensure_export(Model("source", Path(sys.argv[1])), Recipe(), listener, exporter=exporter))
"""


def children(model: Model, log: Path, count: int) -> "list[subprocess.Popen[str]]":
    command = [sys.executable, "-c", CHILD, str(model.folder), str(log)]
    return [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(count)]


def test_of_four_exports_at_once_one_does_the_work_and_all_succeed(model: Model, tmp_path: Path) -> None:
    log = tmp_path / "log"
    outputs = []
    for child in children(model, log, 4):
        with child:
            outputs.append(child.communicate(timeout=60)[0])
            assert child.returncode == 0
    assert len(log.read_text().splitlines()) == 1
    (place,) = {Path(output.splitlines()[-1]) for output in outputs}
    assert sum("waiting for it" in output for output in outputs) >= 1
    assert verify(place) == []
    assert listing(place.parent) == [place.name]


def test_readers_never_see_a_half_export_while_it_is_replaced(model: Model) -> None:
    place = ensure(model)
    stop = threading.Event()
    damages, reads = [], 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            damages.extend(verify(place))
            reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            assert export_to(place, model, INT4, force=True, exporter=stand_in.export)
    finally:
        stop.set()
        reader.join(30)
    assert damages == []
    assert reads > 5


def test_an_open_export_stays_readable_when_it_is_replaced(model: Model) -> None:
    place = ensure(model)
    with (place / "weights.data").open("rb") as stream:
        export_to(place, model, INT8, force=True, exporter=stand_in.export)
        assert stream.read() == stand_in.content("weights.data", INT4)
    assert (place / "weights.data").read_bytes() == stand_in.content("weights.data", INT8)


def test_without_waiting_a_second_writer_is_refused(model: Model) -> None:
    place = exports_folder() / export_name(model, INT4)
    place.parent.mkdir(parents=True)
    with locked(place.with_name(f".{place.name}.lock")):
        with pytest.raises(BackendError, match=f"another process is writing {place}") as raised:
            ensure(model, wait=False)
        assert raised.value.code == "locked"
    assert ensure(model, wait=False) == place


def test_a_lock_leaves_no_file_and_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    inside, most, waits = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked(lock, on_wait=lambda: waits.append(1)):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert waits
    assert not lock.exists()


def test_what_a_living_writer_has_is_not_litter(tmp_path: Path) -> None:
    mine, dead = tmp_path / ".a.1234.part", tmp_path / ".b.1234.part"
    mine.mkdir()
    dead.mkdir()
    (dead / "weights.data").write_bytes(b"x")
    held, abandoned = tmp_path / ".a.lock", tmp_path / ".b.lock"
    abandoned.touch()
    descriptor = lock_folder(mine)
    assert descriptor is not None
    with locked(held):
        remove_leftovers(tmp_path)
        assert listing(tmp_path) == [mine.name, held.name]
        remove_abandoned(held)
        assert held.exists()
    os.close(descriptor)
    remove_leftovers(tmp_path)
    assert listing(tmp_path) == []


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
    assert verify(place) == []
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
    monkeypatch.setattr(sizes, "_REST", free)
    with pytest.raises(BackendError, match="the disk is full"):
        ensure(model, exporter=stand_in.counting(log))
    assert not log.exists()
    assert listing(exports_folder()) == []


@pytest.mark.parametrize(
    "recipe", [INT4, Recipe(recipe="fast"), INT8, Recipe("fp32"), Recipe(vision_precision="w8")]
)
def test_the_space_asked_for_is_what_a_real_export_takes(recipe: Recipe) -> None:
    taken = Manifest.read(ensure_export(find(), recipe)).size
    asked = sizes.estimate(find().folder, recipe)
    assert taken < asked < 1.1 * taken + sizes._REST


def test_too_little_memory_is_told_before_anything_is_read(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "available_memory", lambda: 1000)
    with pytest.raises(BackendError, match="1000 are free") as raised:
        ensure(model)
    assert raised.value.code == "out_of_memory"


def test_the_machine_tells_its_free_memory() -> None:
    free = sizes.available_memory()
    assert free is None or 1 << 20 < free < 1 << 50


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
    monkeypatch.setattr("router.models.exports.estimate", lambda *_: 1)  # the check before would refuse
    place = ensure(model)
    with pytest.raises(BackendError, match="the disk is full") as raised:
        ensure(model, INT8)
    assert raised.value.code == "disk_full"
    assert verify(place) == []
    assert listing(place.parent) == [place.name]


LIMITED = """
import sys
from pathlib import Path
from backends.base import BackendError
from backends.export.recipe import Recipe
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
    assert resource.RLIMIT_FSIZE is not None
    place = ensure(model)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(model.folder), str(place)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "disk_full\n"
    assert verify(place) == []
    assert listing(place.parent) == [place.name]


@pytest.mark.parametrize("damage", ["truncate", "remove", "flip", "manifest", "empty"])
def test_a_damaged_export_in_the_cache_is_told_of_once_and_made_again(model: Model, damage: str) -> None:
    place = ensure(model)
    file = place / "weights.data"
    match damage:
        case "truncate":
            file.write_bytes(file.read_bytes()[:-1])
        case "remove":
            file.unlink()
        case "flip":
            file.write_bytes(bytes(file.stat().st_size))
        case "manifest":
            (place / "manifest.json").write_text("{")
        case "empty":
            shutil.rmtree(place)
            place.mkdir()
    told: list[str] = []
    assert ensure(model, listener=Listener(notice=told.append)) == place
    assert verify(place) == []
    assert len(told) == 1
    assert "making it again" in told[0]
    told.clear()
    ensure(model, listener=Listener(notice=told.append))
    assert told == []


def test_a_cache_that_cannot_be_written_still_serves_what_it_has(model: Model, home: Path) -> None:
    place = ensure(model)
    for path in (home, place.parent):
        path.chmod(0o500)
    try:
        assert ensure(model) == place
        if os.geteuid() != 0:  # root writes anyway
            with pytest.raises(BackendError, match="nothing can be written") as raised:
                ensure(model, INT8)
            assert raised.value.code == "not_writable"
    finally:
        for path in (home, place.parent):
            path.chmod(0o700)


def test_a_home_below_a_file_is_told(model: Model, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(BackendError, match="set HYBRID_HOME") as raised:
        ensure(model)
    assert raised.value.code == "not_writable"


def test_what_is_not_an_export_is_never_replaced(model: Model, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="is not an export"):
        export_to(documents, model, INT4, force=True, exporter=stand_in.export)
    with pytest.raises(RequestError, match="is not an export"):
        export_to(documents / "thesis.txt", model, INT4, force=True, exporter=stand_in.export)
    assert listing(documents) == ["thesis.txt"]


def test_an_export_elsewhere_is_replaced_only_when_told_to(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is taken
    assert export_to(out, model, INT4, exporter=stand_in.export)
    assert not export_to(out, model, INT4, exporter=stand_in.export)
    with pytest.raises(RequestError, match="add --force"):
        export_to(out, model, INT8, exporter=stand_in.export)
    assert export_to(out, model, INT8, force=True, exporter=stand_in.export)
    assert Manifest.read(out).recipe == INT8
    assert listing(tmp_path) == ["home", "out", "source"]


def test_an_export_serves_itself_but_not_with_other_settings(model: Model) -> None:
    place = ensure(model)
    export = Model("export", place)
    assert ensure(export) == ensure_export(export) == place
    with pytest.raises(RequestError, match="was exported with other settings"):
        ensure(export, INT8)
    with pytest.raises(RequestError, match="is an export already"):
        export_to(place, export, INT4, exporter=stand_in.export)


def test_a_removed_export_is_gone_with_its_memory(model: Model, home: Path) -> None:
    place = ensure(model)
    assert listing(home / "seen")
    assert remove_export(place.name) == place
    assert listing(place.parent) == listing(home / "seen") == []
    for name in (place.name, "..", "../exports", "/etc", "", "."):
        with pytest.raises(RequestError, match="there is no export"):
            remove_export(name)


def test_an_export_that_is_being_written_is_not_removed(model: Model) -> None:
    place = ensure(model)
    with locked(place.with_name(f".{place.name}.lock")), pytest.raises(BackendError, match="another process"):
        remove_export(place.name)
    assert verify(place) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_where_names_cannot_be_swapped_a_death_between_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(folders, "_exchange", lambda *_: False)
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
