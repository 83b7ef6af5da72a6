"""Threads follow what the process may use, and a model stays in the process that loaded it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from backends.base import Runtime
from backends.machine import ARENAS, available_memory, total_memory, usable_cores
from backends.onnx import decoder

ALLOWED = 4  # by the affinity mask that the tests give


@pytest.mark.parametrize(
    ("written", "cores"),
    [
        ("max 100000\n", ALLOWED),
        ("50000 100000\n", 1),
        ("120000 100000\n", 2),
        ("400000 100000\n", 4),
        ("9900000 100000\n", ALLOWED),
        ("nonsense", ALLOWED),
        (None, ALLOWED),
    ],
)
@pytest.mark.parametrize("has_mask", [True, False])
def test_a_containers_share_of_time_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str | None, cores: int, has_mask: bool
) -> None:
    if has_mask:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(ALLOWED)), raising=False)
    else:  # macOS
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: ALLOWED)
    if written is not None:
        (tmp_path / "cpu.max").write_text(written)
    assert usable_cores(tmp_path / "cpu.max") == cores


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A machine of 8000 KiB, 6000 of them free, and where its control group's files stand."""
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    meminfo.write_text("MemTotal:    8000 kB\nMemFree:    1000 kB\nMemAvailable:    6000 kB\n")
    group.mkdir()
    return meminfo, group


def limit(group: Path, most: str, used: int, cached: int) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\nactive_file 9\n")


def test_without_a_limit_the_memory_is_the_machines(machine: tuple[Path, Path]) -> None:
    assert (total_memory(*machine), available_memory(*machine)) == (8000 << 10, 6000 << 10)
    limit(machine[1], "max", 5000 << 10, 0)
    assert (total_memory(*machine), available_memory(*machine)) == (8000 << 10, 6000 << 10)


def test_a_containers_limit_bounds_the_memory_and_its_cached_files_count_as_free(
    machine: tuple[Path, Path],
) -> None:
    limit(machine[1], str(4000 << 10), 3000 << 10, 500 << 10)
    assert (total_memory(*machine), available_memory(*machine)) == (4000 << 10, 1500 << 10)
    limit(machine[1], str(9000 << 10), 1000 << 10, 0)  # more than there is
    assert (total_memory(*machine), available_memory(*machine)) == (8000 << 10, 6000 << 10)


def test_memory_that_nobody_tells_of_is_not_known(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert total_memory(nowhere, nowhere) is None
    assert available_memory(nowhere, nowhere) is None


def test_named_threads_are_taken_and_others_fit_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoder.options(Runtime(threads=3)).intra_op_num_threads == 3
    cores = (os.cpu_count() or 1) + 1
    monkeypatch.setattr(decoder, "usable_cores", lambda: cores)
    assert decoder.options(Runtime()).intra_op_num_threads == cores
    monkeypatch.setattr(decoder, "usable_cores", lambda: os.cpu_count())
    assert decoder.options(Runtime()).intra_op_num_threads == 0


def test_threads_spin_in_a_run_and_rest_between_runs() -> None:
    options = decoder.options(Runtime())
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


CROWD = """
import ctypes, os, sys, threading
from backends.machine import use_few_arenas

if sys.argv[2:]:
    use_few_arenas()
meet = threading.Barrier(13)

def allocate():
    held = bytearray(5000)
    meet.wait()
    meet.wait()

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
meet.wait()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[1].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
meet.wait()
"""


def arenas_of_a_crowd(info: Path, *told: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", CROWD, str(info), *told]
    subprocess.run(command, env=environment | variables, check=True, timeout=60)
    return info.read_text().count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_few_arenas_unless_the_environment_says_how_many(tmp_path: Path) -> None:
    assert arenas_of_a_crowd(tmp_path / "info") > 3
    assert arenas_of_a_crowd(tmp_path / "info", "few") == ARENAS == 2
    assert arenas_of_a_crowd(tmp_path / "info", "few", MALLOC_ARENA_MAX="3") == 3
