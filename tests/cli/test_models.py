"""``hybrid models`` for exports: listed, shown, removed, also damaged ones (pulled ones: test_models_hub)."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from backends.store import locked
from router.cli import run
from router.models import EMBEDDED_FOLDER, exports_folder, find, home, local_models
from tests import stand_in
from tests.stand_in import listing


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("backends.export.export", stand_in.export)


@pytest.fixture
def export(capsys) -> Path:
    """An export of the embedded model."""
    assert run(["export", "scenes"]) == 0
    return Path(capsys.readouterr().out.strip())


def printed(capsys, *arguments: str) -> str:
    assert run(["models", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    text: str = out
    return text


def test_the_embedded_model_is_always_there(capsys) -> None:
    assert printed(capsys, "path", "scenes") == f"{EMBEDDED_FOLDER}\n"
    (entry,) = json.loads(printed(capsys, "list", "--json"))
    assert (entry["name"], entry["kind"], entry["path"]) == ("scenes", "checkpoint", str(EMBEDDED_FOLDER))
    assert entry["size"] == sum(file.stat().st_size for file in EMBEDDED_FOLDER.iterdir() if file.is_file())


def test_exports_are_listed_with_what_they_were_made_from(export: Path, capsys) -> None:
    header, scenes, row = (line.split() for line in printed(capsys, "list").splitlines())
    assert header == ["NAME", "KIND", "SIZE", "MADE", "FROM"]
    assert scenes[:2] == ["scenes", "checkpoint"]
    assert (row[0], row[1], row[-1]) == (export.name, "export", "scenes")


def test_an_export_is_a_model_by_its_name_and_by_its_path(export: Path, capsys) -> None:
    assert find(export.name) == find(str(export))
    assert find(export.name).is_export
    assert printed(capsys, "path", export.name) == f"{export}\n"
    shown = printed(capsys, "show", export.name)
    assert f"path: {export}\n" in shown
    assert "relative error at most 0.0700 (layers.0.q_proj)" in shown
    fields = json.loads(printed(capsys, "show", export.name, "--json"))
    assert (fields["kind"], fields["source"], fields["recipe"]["precision"]) == ("export", "scenes", "int4")


def test_a_damaged_export_is_refused_by_name_but_listed_and_removable(export: Path, capsys) -> None:
    (export / "manifest.json").write_text("{")
    assert run(["models", "show", export.name]) == 4
    assert "manifest.json is not valid JSON" in capsys.readouterr().err
    assert [entry.kind for entry in local_models()] == ["checkpoint", "damaged export"]
    assert run(["models", "rm", export.name]) == 0
    assert listing(exports_folder()) == []


def test_a_truncated_export_is_refused_with_both_sizes(export: Path, capsys) -> None:
    file = export / "weights.data"
    file.write_bytes(file.read_bytes()[:1000])
    assert run(["models", "path", str(export)]) == 4
    assert "weights.data has 1000 bytes, 200000 expected" in capsys.readouterr().err


def test_a_removed_export_is_gone(export: Path, capsys) -> None:
    assert run(["models", "rm", export.name]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"removed {export.name}, ")
    assert listing(exports_folder()) == listing(home() / "seen") == []


@pytest.mark.parametrize("name", ["scenes", ".", "..", "/", "exports", "~", "org/name", "", "a b"])
def test_only_what_is_in_a_cache_is_removed(export: Path, capsys, tmp_path: Path, name: str) -> None:
    assert run(["models", "rm", name]) == 4
    assert f"'{name}' is not in a cache, so it is not removed" in capsys.readouterr().err
    assert listing(exports_folder()) == [export.name]
    assert run(["models", "rm", str(export)]) == 4  # by name, never by path


def test_an_export_at_work_is_not_removed(export: Path, capsys) -> None:
    with locked(export.with_name(f".{export.name}.lock")):
        assert run(["models", "rm", export.name]) == 6
    assert "another process is writing" in capsys.readouterr().err
    assert export.is_dir()


def test_help_says_what_the_commands_do(capsys) -> None:
    text = printed(capsys)
    assert text == printed(capsys, "--help")
    for command in ("list", "pull", "show", "path", "rm"):
        assert f"  {command} " in text
