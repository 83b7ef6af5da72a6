"""Threads follow what the process may use, and a model stays in the process that loaded it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from backends.base import Runtime
from backends.ort import decoder
from backends.process import ARENAS, usable_cores

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("written", "cores"),
    [
        ("max 100000\n", ALLOWED),
        ("50000 100000\n", 1),
        ("120000 100000\n", min(2, ALLOWED)),
        ("9900000 100000\n", ALLOWED),
        ("nonsense", ALLOWED),
        (None, ALLOWED),
    ],
)
def test_a_containers_share_of_time_bounds_the_cores(tmp_path: Path, written: str | None, cores: int) -> None:
    if written is not None:
        (tmp_path / "cpu.max").write_text(written)
    assert usable_cores(tmp_path / "cpu.max") == cores


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
from backends.process import use_few_arenas

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
