"""Exports in the cache: made once, found again, rebuilt when damaged, replaced and removed with care."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import BackendError, RequestError
from backends.export import sizes
from backends.store import Manifest, Recipe, locked, verify_folder
from router.models import Listener, Model, ensure_export, export_to, exports_folder, find, remove_export
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


def test_an_export_is_made_once_and_then_found(model: Model, tmp_path: Path) -> None:
    log = tmp_path / "log"
    exporter = stand_in.counting(log)
    places = {ensure(model, exporter=exporter) for _ in range(3)}
    assert len(log.read_text().splitlines()) == 1
    (place,) = places
    assert place.parent == exports_folder()
    assert verify_folder(place) == []
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
    monkeypatch.setattr("router.models.exports.SMALL", 8)
    first = export_name(model, INT4)
    os.utime(model.folder / "model.safetensors", (1, 1))
    assert export_name(model, INT4) != first


def test_a_pulled_model_is_known_by_its_commit_alone(model: Model, tmp_path: Path) -> None:
    one = Model("org/name", model.folder, "0" * 40)
    moved = Model("org/name", tmp_path, "0" * 40)
    assert export_name(one, INT4) == export_name(moved, INT4)
    assert export_name(one, INT4) != export_name(Model("org/name", model.folder, "1" * 40), INT4)


@pytest.mark.parametrize(
    "recipe",
    [INT4, Recipe(recipe="fast"), INT8, Recipe("fp32"), Recipe(vision_precision="w8"), Recipe(shortlist=32)],
    ids=str,
)
def test_the_space_asked_for_is_what_a_real_export_takes(recipe: Recipe) -> None:
    taken = Manifest.read(ensure_export(find(), recipe)).size
    estimated = sizes.estimate(find().folder, recipe)
    assert taken < estimated < 1.1 * taken + sizes.OVERHEAD


def test_too_little_memory_is_told_before_anything_is_read(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "available_memory", lambda: 1000)
    with pytest.raises(BackendError, match="1000 are free") as raised:
        ensure(model)
    assert raised.value.code == "out_of_memory"


def test_calibration_asks_for_more_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = find().folder
    monkeypatch.setattr(sizes, "available_memory", lambda: sizes.MEMORY)
    sizes.check_memory(scenes, INT4)
    with pytest.raises(BackendError, match=f"{sizes.MEMORY} are free"):
        sizes.check_memory(scenes, replace(INT4, calibrate=True))


def test_the_machine_tells_its_free_memory() -> None:
    free = sizes.available_memory()
    assert free is None or 1 << 20 < free < 1 << 50


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
    notices: list[str] = []
    assert ensure(model, listener=Listener(notice=notices.append)) == place
    assert verify_folder(place) == []
    assert len(notices) == 1
    assert "making it again" in notices[0]
    notices.clear()
    ensure(model, listener=Listener(notice=notices.append))
    assert notices == []


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
    assert verify_folder(place) == []
