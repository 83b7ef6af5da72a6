"""The file of what was typed in earlier chats."""

import asyncio
import stat
from pathlib import Path

import click
import pytest

from router.cli.chat import keyboard
from router.cli.chat.keyboard import History, history_file


def entries(kept: History) -> list[str]:
    """The newest first, as the line editor gets them."""

    async def read() -> list[str]:
        return [entry async for entry in kept.load()]

    return asyncio.run(read())


def test_what_is_kept_comes_back_newest_first(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "chat-history"
    kept = History(file, pytest.fail)
    for text in ("one", "two\nlines", "thrée ☃"):
        kept.append_string(text)
    assert entries(History(file, pytest.fail)) == ["thrée ☃", "two\nlines", "one"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    file = tmp_path / "chat-history"
    file.touch(0o644)
    file.chmod(0o644)
    History(file, pytest.fail)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_older_half_of_a_large_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyboard, "LARGEST", 2000)
    file = tmp_path / "chat-history"
    kept = History(file, pytest.fail)
    texts = [f"question {number}" for number in range(100)]
    for text in texts:
        kept.append_string(text)
    size = file.stat().st_size
    left = entries(History(file, pytest.fail))
    assert left == texts[::-1][: len(left)]
    assert 40 <= len(left) <= 60
    assert file.stat().st_size < size / 2 + 100
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_cannot_be_kept_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "chat-history").mkdir()
    kept = History(tmp_path / "chat-history", told.append)
    assert entries(kept) == []
    kept.append_string("one")
    kept.append_string("two")
    assert entries(kept) == ["two", "one"]
    assert told == [f"what is typed is not kept: {tmp_path}/chat-history: Is a directory"]


def test_it_is_kept_where_exports_are_or_else_beside_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_HOME", "/somewhere")
    assert history_file() == Path("/somewhere/chat-history")
    monkeypatch.delenv("HYBRID_HOME")
    assert history_file() == Path(click.get_app_dir("hybrid"), "chat-history")
