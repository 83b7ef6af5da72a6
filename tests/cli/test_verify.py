"""``hybrid verify``: every file of an export read, and the damaged ones named."""

from pathlib import Path

import pytest

from router.cli import run
from tests import stand_in
from tests.cli.test_export import exported, told
from tests.stand_in import listing


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports by the stand-in."""
    monkeypatch.setattr("backends.export.export", stand_in.export)


def test_verify_reads_every_export_of_a_checkpoint(quick, capsys) -> None:
    assert run(["verify", "scenes"]) == 0
    made = capsys.readouterr().out
    assert "scenes-int4-faithful-" in made
    assert made.count("all as exported") == 1
    places = sorted(str(exported(capsys, *options)[0]) for options in ((), ("--recipe", "fast")))
    assert run(["verify", "scenes"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.partition(":")[0] for line in out.splitlines()] == places
    assert f"8 files, {told(Path(places[0]))}, all as exported" in out


def test_a_flipped_bit_in_any_file_of_a_real_export_is_found_by_name(capsys) -> None:
    place, err = exported(capsys)
    assert "relative error at most" in err
    names = listing(place)
    assert {"decoder.onnx", "vision.onnx", "weights.data", "tokenizer.json", "manifest.json"} <= {*names}
    assert run(["verify", str(place)]) == run(["verify", place.name]) == 0
    for name in names:
        data = bytearray((place / name).read_bytes())
        data[len(data) // 2] ^= 4
        (place / name).write_bytes(data)
        capsys.readouterr()
        assert run(["verify", "scenes"] if name != "manifest.json" else ["verify", str(place)]) == 4
        assert str(place / name) in capsys.readouterr().err
        data[len(data) // 2] ^= 4
        (place / name).write_bytes(data)
    assert run(["verify", "scenes"]) == 0
