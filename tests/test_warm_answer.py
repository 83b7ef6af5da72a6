"""What an answer from an export that is there imports, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from router.models import find

pytest.importorskip("onnxruntime")

ANSWER = """
import sys
from router import Message, Request, Router, open_image

router = Router("scenes")
for _ in range(2):
    for parts in (("Hi",), (open_image("quadrants.png"), "Which colours?")):
        router.complete(Request((Message.of("user", *parts),)))
print(*sorted(name for name in sys.modules if name.startswith("backends.export")))
"""


def imported(home: Path) -> list[str]:
    """The exporter's modules that a process has after its answers, with exports kept in ``home``."""
    samples = find("scenes").folder / "samples"
    places = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "HYBRID_HOME": str(home), "PYTHONPATH": places}
    command = [sys.executable, "-c", ANSWER]
    return subprocess.check_output(command, cwd=samples, env=environment, text=True).split()


def test_an_answer_imports_no_exporter_and_making_the_export_does(tmp_path: Path) -> None:
    assert "backends.export.graphs" in imported(tmp_path), "the export was made"
    assert imported(tmp_path) == []
