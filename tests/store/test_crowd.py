"""Several at once: writers of one export, readers while it is replaced, and the locks between them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backends.base import BackendError
from backends.store import locked, remove_leftovers, verify_folder
from backends.store.lock import lock_folder, remove_abandoned
from router.models import Model, export_to, exports_folder
from router.models.exports import export_name
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


CHILD = """
import sys
from pathlib import Path
from backends.store import Recipe
from router.models import Listener, Model, ensure_export
from tests import stand_in

listener = Listener(notice=print)
print("ready", flush=True)
sys.stdin.readline()
exporter = stand_in.counting(Path(sys.argv[2]), pause=0.02)
print(ensure_export(Model("source", Path(sys.argv[1])), Recipe(), listener, exporter=exporter))
"""


def test_of_four_exports_at_once_one_does_the_work_and_all_succeed(model: Model, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", CHILD, str(model.folder), str(log)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert len(log.read_text().splitlines()) == 1
    (place,) = {Path(output.splitlines()[-1]) for output in outputs}
    assert sum("waiting for it" in output for output in outputs) >= 1
    assert verify_folder(place) == []
    assert listing(place.parent) == [place.name]


def test_readers_never_see_a_half_export_while_it_is_replaced(model: Model) -> None:
    place = ensure(model)
    stop = threading.Event()
    damages, reads = [], 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            damages.extend(verify_folder(place))
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
