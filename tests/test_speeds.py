"""What was measured on this machine, kept for policies and estimates."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from backends import Runtime
from backends.machine import Processor
from backends.store import Recipe
from router.estimates import Speed, read_speeds, record_speeds
from router.models import Model, find, source_of

ONNX = Speed(
    1.5, prefill=((128, 100.0), (1024, 50.0)), decode=((128, 20.0), (1024, 10.0)), vision=((784, 400.0),)
)
# the default recipe and a file of measurements, as the first version that had them wrote both
DEFAULT_RECIPE = {
    "precision": "int4", "recipe": "faithful", "block_size": None, "symmetric": None, "search": True,
    "accuracy_level": 4, "head_bits": None, "int8_layers": [], "vision_precision": None,
}  # fmt: skip
KEPT = """\
{
 "format": 1, "model": "scenes",
 "speeds": {
  "onnx": {
   "load_seconds": 0.29, "prefill": [[16, 100.0], [64, 200.0]], "decode": [[18, 23.5]], "vision": [[36, 11.9]]
  }
 }
}
"""
GENAI = Speed(1.0, prefill=((128, 110.0),), decode=((128, 25.0),))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    shutil.copytree(find().folder, folder)
    return Model("model", folder)


def test_what_was_recorded_is_read_again_and_added_to(model: Model) -> None:
    assert read_speeds(model, Runtime()) == {}
    record_speeds(model, Runtime(), {"onnx": ONNX})
    record_speeds(model, Runtime(), {"genai": GENAI})
    assert read_speeds(model, Runtime()) == {"onnx": ONNX, "genai": GENAI}
    faster = replace(ONNX, load_seconds=1.0)
    record_speeds(model, Runtime(), {"onnx": faster})
    assert read_speeds(model, Runtime())["onnx"] == faster


def test_a_file_that_an_earlier_version_kept_is_read_as_it_is(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path))
    monkeypatch.setattr("platform.node", lambda: "node")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(
        "router.estimates.Processor.read", lambda: Processor("x86_64", "A Processor", frozenset({"avx2"}))
    )
    # what the name of the file has been the digest of since files were first kept
    key = [
        1, source_of(model).fingerprint, DEFAULT_RECIPE, ["node", "x86_64", "A Processor"], "cpu", "bf16", 2,
    ]  # fmt: skip
    (tmp_path / "speeds").mkdir()
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    (tmp_path / "speeds" / f"{name}.json").write_text(KEPT)
    assert read_speeds(model, Runtime("cpu", "bf16", threads=2)) == {
        "onnx": Speed(0.29, prefill=((16, 100.0), (64, 200.0)), decode=((18, 23.5),), vision=((36, 11.9),))
    }
    assert read_speeds(model, Runtime("cpu", "bf16", threads=3)) == {}


def test_figures_speak_for_what_they_were_measured_on_only(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_speeds(model, Runtime(threads=1), {"onnx": ONNX})
    assert read_speeds(model, Runtime(threads=1))
    assert read_speeds(model, Runtime(threads=3)) == {}
    assert read_speeds(model, Runtime(threads=1, dtype="fp32")) == {}
    assert read_speeds(model, Runtime(threads=1), Recipe(recipe="fast")) == {}
    assert read_speeds(find(), Runtime(threads=1)) == {}
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "another")
        assert read_speeds(model, Runtime(threads=1)) == {}
    with monkeypatch.context() as patch:
        patch.setattr("router.estimates.Processor.read", lambda: Processor("x86_64", "another", None))
        assert read_speeds(model, Runtime(threads=1)) == {}
    (model.folder / "config.json").write_text("{}")
    assert read_speeds(model, Runtime(threads=1)) == {}


def test_the_cores_that_may_be_used_stand_for_the_threads_that_nobody_named(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.estimates.usable_cores", lambda: 3)
    record_speeds(model, Runtime(), {"onnx": ONNX})
    assert read_speeds(model, Runtime(threads=3))
    monkeypatch.setattr("router.estimates.usable_cores", lambda: 2)
    assert read_speeds(model, Runtime()) == {}


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"speeds": 3}', '{"speeds": {"onnx": {"load_seconds": 1}}}']
)
def test_a_damaged_file_is_as_good_as_none(model: Model, damage: str) -> None:
    place = record_speeds(model, Runtime(), {"onnx": ONNX})
    place.write_text(damage)
    assert read_speeds(model, Runtime()) == {}
    record_speeds(model, Runtime(), {"genai": GENAI})
    assert read_speeds(model, Runtime()) == {"genai": GENAI}


def test_seconds_are_read_between_the_sizes_that_were_measured() -> None:
    assert ONNX.seconds(128, 0) == pytest.approx(1.28)
    assert ONNX.seconds(64, 0) == pytest.approx(0.64)
    assert ONNX.seconds(576, 0) == pytest.approx(576 * 0.015)  # halfway between 10 and 20 ms a token
    assert ONNX.seconds(128, 10) == pytest.approx(1.28 + 10 * (0.05 + 0.05 * 5 / 896))
    assert ONNX.seconds(128, 0, (784, 784)) == pytest.approx(1.28 + 2 * 784 / 400)


def test_nothing_is_made_up_for_what_was_not_measured() -> None:
    assert GENAI.seconds(128, 1) is not None
    assert GENAI.seconds(128, 1, (784,)) is None
    assert replace(GENAI, decode=()).seconds(128, 1) is None
