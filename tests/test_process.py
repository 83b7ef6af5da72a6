"""Threads follow what the process may use, and a model stays in the process that loaded it."""

import os
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from backends.base import Runtime
from backends.ort import decoder
from backends.process import usable_cores

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
