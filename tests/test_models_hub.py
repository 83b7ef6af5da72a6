"""Pulling from a hub on this machine: whole or not at all, the right bytes, errors that say what to do."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from backends.base import BackendError, RequestError
from router.cli import run
from router.cli.progress import size as in_words
from router.models import Listener, find
from router.models.hub import HubId, local, pull, pulled
from router.models.inventory import inventory
from router.models.model import EMBEDDED_FOLDER
from tests.loopback_hub import Hub, serving

NAME = "org/Tiny-VL"
WEIGHTS = "model.safetensors"
COMMIT = "a" * 40
UNWANTED = {
    "pytorch_model.bin": b"\x80\x04pickle",
    "modeling.py": b"raise SystemExit",
    "onnx/model.safetensors": b"elsewhere",
    "README.md": b"# Tiny",
    ".gitattributes": b"*.safetensors filter=lfs",
}


@pytest.fixture(scope="session")
def checkpoint() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in EMBEDDED_FOLDER.iterdir() if file.is_file()}


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    """One connection pool for all: making one takes longer than a pull."""
    yield
    close_session()


@pytest.fixture
def hub(checkpoint: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    with serving(Hub(NAME, checkpoint | UNWANTED)) as served:
        connect(monkeypatch, served.url, tmp_path)
        yield served


def connect(monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: Path) -> None:
    """Set what huggingface_hub reads from the environment when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)


def refusal(error: type[RequestError] | type[BackendError], name: str = NAME) -> str:
    wanted = HubId.parse(name)
    assert wanted is not None
    with pytest.raises(error) as raised:
        pull(wanted)
    assert raised.value.code == ("model_not_found" if error is RequestError else "model_invalid")
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("Qwen/Qwen3-VL-2B-Instruct", "main"),
        ("org/name@v1.0", "v1.0"),
        ("o/n@refs/pr/1", "refs/pr/1"),
        (f"o/n@{COMMIT}", COMMIT),
    ],
)
def test_a_hub_id_is_an_owner_a_name_and_perhaps_a_revision(text: str, revision: str) -> None:
    wanted = HubId.parse(text)
    assert wanted == HubId(text.partition("@")[0], revision)
    assert str(wanted) == text


NO_IDS = "name,/a/b,./a/b,../b,a/..,a/b/c,a/b@,a/b@../c,a/b@/c,a--b/c,a/b c,a/b\n,é/b,~/b"


@pytest.mark.parametrize("text", NO_IDS.split(","))
def test_what_is_no_hub_id_is_not_asked_for(text: str) -> None:
    assert HubId.parse(text) is None


def test_a_model_is_pulled_once_and_then_found_without_the_network(hub: Hub, checkpoint) -> None:
    told: list[tuple[str, int, int]] = []
    model = find(NAME, Listener(lambda *step: told.append(step)))
    assert (model.name, model.revision, model.is_export) == (NAME, COMMIT, False)
    assert {file.name: file.read_bytes() for file in model.folder.iterdir()} == checkpoint
    assert told[-1][1] == told[-1][2] >= len(checkpoint[WEIGHTS])
    asked = len(hub.requests)
    assert find(NAME) == local(HubId(NAME)) == model
    assert find(f"{NAME}@{COMMIT}") == model
    assert len(hub.requests) == asked


def test_nothing_that_could_run_is_downloaded(hub: Hub) -> None:
    find(NAME)
    assert [file for file in UNWANTED if hub.downloads(file)] == []


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, checkpoint, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cut[WEIGHTS] = 1
    model = find(NAME)
    assert (model.folder / WEIGHTS).read_bytes() == checkpoint[WEIGHTS]
    whole, resumed = hub.downloads(WEIGHTS)
    assert whole == ""
    got = int(resumed.removeprefix("bytes=").rstrip("-"))
    assert 0.2 * len(checkpoint[WEIGHTS]) < got <= 0.3 * len(checkpoint[WEIGHTS])


def test_a_pull_that_fails_leaves_no_model_and_the_next_one_goes_on(
    hub: Hub, checkpoint, monkeypatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 30)  # nothing is kept of a cut chunk
    hub.cut[WEIGHTS] = 100
    assert "try again" in refusal(RequestError)
    assert local(HubId(NAME)) is None
    assert list(pulled()) == []
    tokenizer = len(hub.downloads("tokenizer.json"))
    hub.cut.clear()
    assert (find(NAME).folder / WEIGHTS).read_bytes() == checkpoint[WEIGHTS]
    assert len(hub.downloads("tokenizer.json")) == tokenizer == 1


@pytest.mark.parametrize("file", [WEIGHTS, "chat_template.jinja", "config.json"])
def test_wrong_bytes_are_noticed_removed_and_asked_for_once_more(hub: Hub, checkpoint, file: str) -> None:
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


def test_a_file_damaged_in_the_cache_is_downloaded_again(hub: Hub, checkpoint) -> None:
    file = find(NAME).folder / WEIGHTS
    os.truncate(file, 1000)
    assert local(HubId(NAME)) is None
    assert (find(NAME).folder / WEIGHTS).read_bytes() == checkpoint[WEIGHTS]
    file.write_bytes(bytes(len(checkpoint[WEIGHTS])))
    pull(HubId(NAME))
    assert file.read_bytes() == checkpoint[WEIGHTS]


def test_an_unknown_id_is_told(hub: Hub) -> None:
    assert "the hub has no model 'org/Other'" in refusal(RequestError, "org/Other")


def test_an_unknown_revision_is_told(hub: Hub) -> None:
    assert "has no revision 'v9'" in refusal(RequestError, f"{NAME}@v9")


def test_a_revision_is_pinned(hub: Hub, checkpoint) -> None:
    hub.branches["v1"] = "b" * 40
    first, second = find(NAME), find(f"{NAME}@v1")
    assert (first.revision, second.revision) == (COMMIT, "b" * 40)
    hub.branches["main"] = "c" * 40
    assert find(NAME) == first  # what is here is used
    assert pull(HubId(NAME)).revision == "c" * 40  # until it is pulled
    assert find(f"{NAME}@{COMMIT}") == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({WEIGHTS: None}, "no safetensors weights; others can run code"),
        ({"config.json": None}, "no config.json"),
        ({"tokenizer.json": None}, "no tokenizer.json"),
        ({"config.json": b'{"model_type": "llama"}'}, "model_type"),
        ({"config.json": b'{"model_type": "qwen3_vl", "auto_map": {"a": "b.py"}}'}, "never run"),
        ({"config.json": b"{"}, "not valid JSON"),
    ],
)
def test_what_is_no_qwen3_vl_is_refused_before_its_weights_come(hub: Hub, change, words: str) -> None:
    files = hub.files | change
    hub.files = {name: data for name, data in files.items() if data is not None}
    assert words in refusal(BackendError)
    assert hub.downloads(WEIGHTS) == []


def test_a_full_disk_is_told_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.export import folder

    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BackendError, match="bytes, 1000000 are free") as raised:
        find(NAME)
    assert raised.value.code == "disk_full"
    assert hub.downloads(WEIGHTS) == []


def test_offline_nothing_is_asked_and_what_is_here_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="offline") as raised:
        find(NAME, offline=True)
    assert raised.value.code == "model_not_found"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RequestError, match=f"hybrid models pull {NAME}"):
        find(NAME)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    model = find(NAME)
    asked = len(hub.requests)
    assert find(NAME, offline=True) == pull(HubId(NAME), offline=True) == model
    assert len(hub.requests) == asked


def test_a_hub_that_is_not_there_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening: a connection is refused
        connect(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path)
        started = time.monotonic()
        assert "the hub did not deliver" in refusal(RequestError)
        assert time.monotonic() - started < 5


def test_the_commands_pull_show_list_and_remove(hub: Hub, checkpoint, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["models", "pull", NAME]) == 0
    out, err = capsys.readouterr()
    folder = Path(out.strip())
    assert err == ""
    assert (folder / WEIGHTS).is_file()
    assert run(["models", "path", NAME]) == 0
    assert capsys.readouterr().out == out
    assert run(["models", "show", "--json", NAME]) == 0
    size = sum(map(len, checkpoint.values()))
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["revision"], shown["size"]) == ("checkpoint", COMMIT, size)
    assert [entry.name for entry in inventory()] == ["scenes", NAME]
    assert run(["models", "list"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["scenes", "checkpoint"],
        [NAME, "checkpoint"],
    ]
    assert run(["models", "rm", NAME]) == 0
    assert f"removed {NAME}, {in_words(size)}" in capsys.readouterr().err
    assert not folder.exists()
    assert run(["models", "rm", NAME]) == 4
    assert "is not in a cache" in capsys.readouterr().err


def test_show_and_path_never_ask_the_hub(hub: Hub, capsys) -> None:
    for command in ("show", "path"):
        assert run(["models", command, NAME]) == 4
        assert "offline" in capsys.readouterr().err
    assert hub.requests == []


def test_a_name_that_is_no_hub_id_is_a_usage_error(capsys) -> None:
    assert run(["models", "pull", "scenes"]) == 2
    assert "is not a hub id" in capsys.readouterr().err


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


def interrupted(hub: Hub, tmp_path: Path, number: int) -> tuple[int, bytes]:
    """The exit code and stderr of a pull that gets a signal while the weights are on their way."""
    hub.pause = 0.1  # ten seconds for the weights
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "models", "pull", NAME], env=environment, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 30
        while not hub.downloads(WEIGHTS):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
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


def test_a_killed_download_is_no_model_and_the_next_one_completes_it(hub: Hub, tmp_path, checkpoint) -> None:
    assert interrupted(hub, tmp_path, signal.SIGKILL) == (-signal.SIGKILL, b"")
    assert list(tmp_path.glob("hub/*/blobs/*.incomplete")) != []
    assert local(HubId(NAME)) is None
    assert (find(NAME).folder / WEIGHTS).read_bytes() == checkpoint[WEIGHTS]


def test_remains_of_killed_downloads_are_removed_when_they_are_old(hub: Hub, tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "models--org--Tiny-VL" / "blobs"
    blobs.mkdir(parents=True)
    old, young = blobs / "old.incomplete", blobs / "young.incomplete"
    for file in (old, young):
        file.write_bytes(b"x")
    os.utime(old, (1, 1))
    find(NAME)
    assert (old.exists(), young.exists()) == (False, True)


def test_the_environment_of_huggingface_hub_is_honoured(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from router.cli import main; main()", "models", "pull", NAME]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}

    def pulling(**more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, env=environment | more, capture_output=True, text=True, timeout=60, check=False
        )

    refused = pulling(HF_HUB_OFFLINE="1")
    assert refused.returncode == 4
    assert "offline" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert hub.requests == []
    done = pulling()
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "hf")
    again = pulling(HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stdout) == (0, done.stdout)
