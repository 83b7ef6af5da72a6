"""Downloads that break, lie or are stopped: a model is whole or not there, and the next pull completes it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from backends.base import BackendError, RequestError
from router.models import HubId, find, pull
from router.models.hub import local, pulled
from tests.models.loopback_hub import NAME, WEIGHTS, Hub, checkpoint, connected, refusal


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    """One connection pool for all: making one takes longer than a pull."""
    yield
    close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with connected(monkeypatch, tmp_path) as served:
        yield served


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cut[WEIGHTS] = 1
    model = find(NAME)
    assert (model.folder / WEIGHTS).read_bytes() == checkpoint()[WEIGHTS]
    whole, resumed = hub.downloads(WEIGHTS)
    assert whole == ""
    got = int(resumed.removeprefix("bytes=").rstrip("-"))
    assert 0.2 * len(checkpoint()[WEIGHTS]) < got <= 0.3 * len(checkpoint()[WEIGHTS])


def test_a_pull_that_fails_leaves_no_model_and_the_next_one_goes_on(hub: Hub, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 30)  # nothing is kept of a cut chunk
    hub.cut[WEIGHTS] = 100
    assert "try again" in refusal(RequestError)
    assert local(HubId(NAME)) is None
    assert list(pulled()) == []
    tokenizer = len(hub.downloads("tokenizer.json"))
    hub.cut.clear()
    assert (find(NAME).folder / WEIGHTS).read_bytes() == checkpoint()[WEIGHTS]
    assert len(hub.downloads("tokenizer.json")) == tokenizer == 1


@pytest.mark.parametrize("file", [WEIGHTS, "chat_template.jinja", "config.json"])
def test_wrong_bytes_are_noticed_removed_and_asked_for_once_more(hub: Hub, file: str) -> None:
    hub.wrong[file] = 1
    if file == "config.json":  # the flipped bit is in its last character
        hub.files = hub.files | {file: hub.files[file] + b"  "}
    model = find(NAME)
    assert (model.folder / file).read_bytes() == hub.files[file]
    assert len(hub.downloads(file)) == 2


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
def test_bytes_that_stay_wrong_are_an_error_and_no_model(hub: Hub, file: str) -> None:
    hub.wrong[file] = 100
    assert f"{file} arrived with other bytes than the hub lists" in refusal(BackendError)
    assert local(HubId(NAME)) is None


def test_a_file_damaged_in_the_cache_is_downloaded_again(hub: Hub) -> None:
    file = find(NAME).folder / WEIGHTS
    os.truncate(file, 1000)
    assert local(HubId(NAME)) is None
    assert (find(NAME).folder / WEIGHTS).read_bytes() == checkpoint()[WEIGHTS]
    file.write_bytes(bytes(len(checkpoint()[WEIGHTS])))
    pull(HubId(NAME))
    assert file.read_bytes() == checkpoint()[WEIGHTS]


def test_a_full_disk_is_told_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.store import folder

    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BackendError, match="bytes, 1000000 are free") as raised:
        find(NAME)
    assert raised.value.code == "disk_full"
    assert hub.downloads(WEIGHTS) == []


def test_a_model_that_lacks_a_small_file_is_not_whole(hub: Hub) -> None:
    file = find(NAME).folder / "generation_config.json"
    file.unlink()
    assert local(HubId(NAME)) is None
    assert find(NAME).folder == file.parent
    assert file.is_file()


def test_a_model_that_another_program_has_pulled_is_used(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    model = find(NAME)
    monkeypatch.setattr("router.models.hub.listed_before", lambda *_: None)  # older programs keep no list
    assert local(HubId(NAME)) == model
    (model.folder / "tokenizer.json").unlink()
    assert local(HubId(NAME)) is None


SLOW = """
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
from router.cli import main
main()
"""


def begun(tmp_path: Path) -> bool:
    """Whether the weights, the only large file, are on their way."""
    with suppress(FileNotFoundError):  # it ended in between
        return any(file.stat().st_size >= 1 << 16 for file in tmp_path.glob("hub/*/blobs/*.incomplete"))
    return False


def interrupted(hub: Hub, tmp_path: Path, number: int) -> tuple[int, bytes]:
    """The exit code and stderr of a pull that gets a signal while the weights are on their way."""
    hub.pause = 0.1  # ten seconds for the weights
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "models", "pull", NAME], env=environment, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 30
        while not (hub.downloads(WEIGHTS) and begun(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 4
    hub.pause = 0
    return process.returncode, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_slow_download_and_leaves_nothing(hub: Hub, tmp_path: Path, number, code) -> None:
    assert interrupted(hub, tmp_path, number) == (code, b"")
    assert list(tmp_path.glob("hub/*/blobs/*.incomplete")) == []


def test_a_killed_download_is_no_model_and_the_next_one_completes_it(hub: Hub, tmp_path) -> None:
    assert interrupted(hub, tmp_path, signal.SIGKILL) == (-signal.SIGKILL, b"")
    assert list(tmp_path.glob("hub/*/blobs/*.incomplete")) != []
    assert local(HubId(NAME)) is None
    assert (find(NAME).folder / WEIGHTS).read_bytes() == checkpoint()[WEIGHTS]


def test_remains_of_killed_downloads_are_removed_when_they_are_old(hub: Hub, tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "models--org--Tiny-VL" / "blobs"
    blobs.mkdir(parents=True)
    old, young = blobs / "old.incomplete", blobs / "young.incomplete"
    for file in (old, young):
        file.write_bytes(b"x")
    os.utime(old, (1, 1))
    find(NAME)
    assert (old.exists(), young.exists()) == (False, True)
