"""What ``hybrid doctor`` finds out of the machine, the libraries and the models."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

import backends
from backends import Runtime
from router import machine, packages
from router.doctor import FirstToken, Trial, examine
from router.doctor.report import Disk, DoctorReport, Headroom, every_fit
from router.machine import Machine
from router.models import exports_folder, find
from tests import stand_in
from tests.doctor.doctoring import stand_in_for_scenes, with_script
from tests.processors import ARM, OLD, VNNI, processor
from tests.test_footprint import CHECKPOINTS, EXPORTS


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_scripted_backend_is_tried_only_where_it_has_a_script(monkeypatch) -> None:
    monkeypatch.setattr(backends, "names", lambda: ("scripted",))
    assert examine(run=False).backends == ()
    assert examine(run=False).can_answer == ()
    with_script(monkeypatch)
    (scripted,) = examine(run=False).backends
    assert scripted.state == "not run"


@pytest.mark.parametrize(
    ("text", "architecture", "present"),
    [
        (VNNI, "x86_64", {"AVX2": True, "AVX-512": True, "VNNI": True, "AVX512-BF16": False, "AMX": False}),
        (OLD, "x86_64", {"AVX2": True, "AVX-512": False, "VNNI": False, "AVX512-BF16": False, "AMX": False}),
        (ARM, "aarch64", {"dotprod": True, "i8mm": True, "bf16": True, "SVE": True}),
        (
            ARM.replace(" asimddp sve i8mm bf16", ""),
            "aarch64",
            {"dotprod": False, "i8mm": False, "bf16": False, "SVE": False},
        ),
        ("", "x86_64", dict.fromkeys(["AVX2", "AVX-512", "VNNI", "AVX512-BF16", "AMX"])),
        ("", "riscv64", {}),
    ],
)
def test_the_instruction_sets_that_matter_are_told(
    tmp_path: Path, text: str, architecture: str, present: dict[str, bool]
) -> None:
    found = replace(Machine.read(), processor=processor(tmp_path, text, architecture)).instruction_sets
    assert {each.name: each.present for each in found} == present
    assert all(each.without for each in found)


def test_the_machine_is_told_as_it_is(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    found, headroom = Machine.read(), Headroom.read()
    assert (found.cores_usable, found.cores_present) == (3, os.cpu_count())
    assert found.memory_total is not None
    assert headroom.memory_available is not None
    assert 0 < headroom.memory_available <= found.memory_total
    assert headroom.disk.home == tmp_path / "home"
    assert headroom.disk.free > 0
    assert headroom.disk.writable
    assert not headroom.disk.home.exists()  # looking makes nothing


def test_what_lacks_is_told_with_what_to_do() -> None:
    well = Headroom(memory_available=10**10, disk=Disk(Path("/a"), 10**10, writable=True))
    assert well.advice == ()
    (closed,) = replace(well, disk=Disk(Path("/a"), 10**10, writable=False)).advice
    assert closed == "nothing can be written in /a: set HYBRID_HOME to a folder of your own"
    full, busy = replace(well, memory_available=10**9, disk=Disk(Path("/a"), 10**9, writable=True)).advice
    assert full == "exporting the 2B model takes 1.9 GB of disk: make room, or set HYBRID_HOME"
    assert busy == "exporting a model takes 1 GB of memory: close other programs"


def test_a_folder_that_cannot_be_made_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o777)
    assert Disk.of(tmp_path / "a" / "b").writable
    assert not Disk.of(tmp_path / "file" / "b").writable


def test_a_version_below_its_floor_is_told_with_the_hole_and_the_command(monkeypatch) -> None:
    known = {
        "pillow": "12.9.1",
        "onnx": "1.21.0rc1",
        "torch": "2.13.0+cpu",
        "numpy": "1.0",
        "starlette": "odd",
    }

    def version(name: str) -> str:
        if name not in known:
            raise packages.PackageNotFoundError
        return known[name]

    monkeypatch.setattr(packages, "version", version)
    found = {package.name: package for package in packages.packages()}
    assert found["pillow"].problem == "below 13.0.0: a JPEG can overwrite memory (CVE-2026-112403)"
    assert found["pillow"].advice == "pip install --upgrade 'pillow>=13.0.0'"
    assert found["onnx"].advice == "pip install --upgrade 'onnx>=1.21.0'"
    assert found["torch"].problem is found["numpy"].problem is found["starlette"].problem is None
    assert found["onnxruntime"].version is None
    assert "onnxruntime-gpu" not in found


def test_what_this_package_asks_for_is_not_below_the_floors() -> None:
    project = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text("utf-8")
    for name in ("pillow", "onnx", "torch"):
        floor, _ = packages.FLOORS[name]
        assert f'"{name}>={floor}"' in project


def test_every_model_is_told_with_the_backends_that_read_it() -> None:
    usable = {"torch": CHECKPOINTS, "onnx": EXPORTS}
    stand_in_for_scenes()
    broken = exports_folder() / "broken"
    broken.mkdir()
    scenes, damaged, export = every_fit(find(), usable, Runtime(dtype="fp32"), 300_000_000)
    assert [(fit.backend, fit.verdict) for fit in scenes.fits] == [
        ("torch", "does not fit"),
        ("onnx", "fits"),
    ]
    assert [fit.backend for fit in export.fits] == ["onnx"]
    assert export.entry.source == "scenes"
    assert (damaged.problem, damaged.advice, damaged.fits) == ("damaged", "hybrid models rm broken", ())
    assert every_fit(find(), usable, Runtime(), None)[0].fits[0].verdict is None


def test_a_model_of_ones_own_comes_first_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    own = stand_in.checkpoint(tmp_path / "own")
    first, scenes = every_fit(own, {"torch": CHECKPOINTS}, Runtime(), 10**10)
    assert (first.entry.name, scenes.entry.name) == ("own", "scenes")
    assert first.problem is not None
    assert "config.json" in first.problem
    assert scenes.problem is None


def test_backends_that_begin_an_answer_differently_are_told_of() -> None:
    def began(name: str, text: str) -> Trial:
        capability = backends.capability(name)
        return Trial(
            name,
            "answers",
            capability=capability,
            text=FirstToken(0.1, 1, "I"),
            image=FirstToken(0.1, 2, text),
        )

    def report(*trials: Trial) -> DoctorReport:
        return DoctorReport(Machine.read(), Headroom.read(), (), (), find(), trials)

    assert report(began("torch", "The"), began("onnx", "The"), began("scripted", "A")).disagreement is None
    said = report(began("torch", "The"), began("onnx", "A")).disagreement
    assert said is not None
    assert said.startswith("the answers about an image begin differently (torch 'The', onnx 'A')")
    assert "'hybrid verify scenes --against torch'" in said
