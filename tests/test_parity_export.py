"""The report of ``hybrid verify --against torch`` on small random models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from backends import Prompt, Runtime, load
from backends.export import export
from backends.machine import Processor
from backends.onnx.backend import OnnxSession
from backends.qwen3vl import position_ids
from backends.store import Recipe
from router.cli import run
from router.models import ensure_export, find
from router.parity import BARS, Trace, compare, questions, trace, verify
from router.prompt import PromptBuilder
from tests import tiny

RUNTIME = Runtime(device="cpu", dtype="fp32", threads=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("checkpoint"))


def exported(checkpoint: Path, out: Path) -> Path:
    out.mkdir()
    export(checkpoint, out, Recipe(precision="fp32", vision_precision="fp32"))
    return out


def test_a_float32_export_is_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    told: list[str] = []
    report = verify(checkpoint, exported(checkpoint, tmp_path / "out"), "torch", RUNTIME, told.append)
    assert BARS["fp32"].failures(report) == []
    assert len(report.distances) == 1 + 3 + 1
    assert all(distance.relative_error < 1e-4 for distance in report.distances)
    assert report.reference_dtype == "fp32"
    assert told[0] == "torch: prompt 1 of 8"
    assert told[-1] == "onnx: prompt 8 of 8"


def test_another_model_fails_every_bar(checkpoint: Path, tmp_path: Path) -> None:
    other = tiny.write(tmp_path / "other", seed=1)
    report = verify(other, exported(checkpoint, tmp_path / "out"), "torch", RUNTIME, lambda _: None)
    assert len(BARS["int4"].failures(report)) == len(report.distances) + 2


@pytest.fixture(params=[{"avx2"}, {"avx2", "avx512_bf16"}], ids=["without bf16", "with bf16"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that PyTorch multiplies bf16 fast on, and one that it does not."""
    found = Processor("x86_64", "", frozenset(request.param))
    monkeypatch.setattr("backends.torch.loading.Processor.read", lambda: found)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize(("free", "dtype", "holds"), [(None, "fp32", True), (1, "bf16", False)])
def test_the_reference_is_in_float32_unless_the_memory_forbids_it_and_the_report_says_so(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    free: int | None,
    dtype: str,
    holds: bool,
) -> None:
    out = str(tmp_path / "out")
    assert run(["export", str(checkpoint), out, "--precision", "fp32", "--vision-precision", "fp32"]) == 0
    monkeypatch.setattr("backends.machine.available_memory", lambda: free)
    command = ["verify", out, "--against", "torch", "--checkpoint", str(checkpoint)]
    assert (run(command) == 0) == holds  # bf16's own rounding is more than that of a float32 export
    assert f"against torch in {dtype}, 8 prompts" in capsys.readouterr().out
    assert (run([*command, "--json"]) == 0) == holds
    assert json.loads(capsys.readouterr().out)["report"]["reference_dtype"] == dtype


def test_the_command_prints_the_report_and_its_exit_code_holds_the_bars(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    flags = ["--precision", "fp32", "--vision-precision", "fp32"]
    assert run(["export", str(checkpoint), out, *flags]) == 0
    capsys.readouterr()
    assert run(["export", str(checkpoint), str(tmp_path / "again"), *flags, "--verify"]) == 0
    assert "top-1 agreement 100.0%" in capsys.readouterr().out
    against = ["verify", out, "--against", "torch", "--threads", "1", "--dtype", "fp32"]
    assert run([*against, "--checkpoint", str(checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert "all as exported" in shown
    assert "top-1 agreement 100.0%" in shown
    other = tiny.write(tmp_path / "other", seed=1)
    assert run([*against, "--checkpoint", str(other), "--json"]) == 4
    found = capsys.readouterr()
    assert json.loads(found.out)["report"]["top1"] < 0.5
    assert "prefill scores: cosine" in found.err
    assert found.err.count("\n") == 1


@pytest.fixture(scope="module")
def embedded() -> tuple[list[Prompt], list[Trace]]:
    """The built-in prompts, and what PyTorch makes of them with the embedded model in bf16."""
    folder = find("scenes").folder
    prompts = questions(PromptBuilder.read(folder))
    return prompts, list(
        trace(load("torch", folder, Runtime(device="cpu", dtype="bf16", threads=1)), prompts)
    )


def without_deepstack(monkeypatch: pytest.MonkeyPatch) -> None:
    place = OnnxSession._place

    def blind(self: OnnxSession, *args: Any) -> list[Any]:
        return [0 * added for added in place(self, *args)]

    monkeypatch.setattr(OnnxSession, "_place", blind)


def with_flat_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "backends.onnx.backend.position_ids",
        lambda tokens, _spans, _grid, merge: position_ids(tokens, None, None, merge),
    )


@pytest.mark.parametrize(
    ("damage", "holds"), [(None, True), (without_deepstack, False), (with_flat_positions, False)]
)
def test_the_embedded_model_in_int4_holds_its_bars_and_a_wrong_pipeline_does_not(
    embedded: tuple[list[Prompt], list[Trace]],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[pytest.MonkeyPatch], None] | None,
    holds: bool,
) -> None:
    prompts, reference = embedded
    if damage is not None:
        damage(monkeypatch)
    onnx = load("onnx", ensure_export(find("scenes")), RUNTIME)
    report = compare(reference, list(trace(onnx, prompts, [found.tokens for found in reference])))
    assert (BARS["int4"].failures(report) == []) == holds
