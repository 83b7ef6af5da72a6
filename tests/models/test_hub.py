"""Pulling from a hub on this machine: ids, revisions, offline, what is refused, and the commands."""

import json
import os
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
from backends.qwen3vl import ImageLimits
from router.cli import run
from router.cli.terminal import size as in_words
from router.models import EMBEDDED_FOLDER, HubId, Listener, find, local_models, pull
from router.models.hub import local
from router.prompt import PromptBuilder
from router.types import Message
from tests.models.loopback_hub import COMMIT, NAME, WEIGHTS, Hub, checkpoint, connect, connected, refusal

UNWANTED = {
    "pytorch_model.bin": b"\x80\x04pickle",
    "modeling.py": b"raise SystemExit",
    "onnx/model.safetensors": b"elsewhere",
    "README.md": b"# Tiny",
    ".gitattributes": b"*.safetensors filter=lfs",
}


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    """One connection pool for all: making one takes longer than a pull."""
    yield
    close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with connected(monkeypatch, tmp_path) as served:
        served.files |= UNWANTED
        yield served


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
    hub_id = HubId.parse(text)
    assert hub_id == HubId(text.partition("@")[0], revision)
    assert str(hub_id) == text


NO_IDS = "name,/a/b,./a/b,../b,a/..,a/b/c,a/b@,a/b@../c,a/b@/c,a--b/c,a/b c,a/b\n,é/b,~/b"


@pytest.mark.parametrize("text", NO_IDS.split(","))
def test_what_is_no_hub_id_is_not_asked_for(text: str) -> None:
    assert HubId.parse(text) is None


def test_a_model_is_pulled_once_and_then_found_without_the_network(hub: Hub) -> None:
    steps: list[tuple[str, int, int]] = []
    model = find(NAME, Listener(lambda *step: steps.append(step)))
    assert (model.name, model.revision, model.is_export) == (NAME, COMMIT, False)
    assert {file.name: file.read_bytes() for file in model.folder.iterdir()} == checkpoint()
    assert steps[-1][1] == steps[-1][2] >= len(checkpoint()[WEIGHTS])
    requests = len(hub.requests)
    assert find(NAME) == local(HubId(NAME)) == model
    assert find(f"{NAME}@{COMMIT}") == model
    assert len(hub.requests) == requests


def test_nothing_that_could_run_is_downloaded(hub: Hub) -> None:
    find(NAME)
    assert [file for file in UNWANTED if hub.downloads(file)] == []


def test_an_unknown_id_is_told(hub: Hub) -> None:
    assert "the hub has no model 'org/Other'" in refusal(RequestError, "org/Other")


def test_an_unknown_revision_is_told(hub: Hub) -> None:
    assert "has no revision 'v9'" in refusal(RequestError, f"{NAME}@v9")


def test_a_revision_is_pinned(hub: Hub) -> None:
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
        ({"tokenizer.json": b"{}"}, "is not a tokenizer"),
        ({"preprocessor_config.json": None}, "no image settings"),
        ({"preprocessor_config.json": None, "processor_config.json": b"{}"}, "no image settings"),
        ({"preprocessor_config.json": b'{"patch_size": 14}'}, "patch_size must be 16"),
        ({"chat_template.jinja": None}, "no chat template"),
        ({"config.json": b'{"model_type": "llama"}'}, "model_type"),
        ({"config.json": b'{"model_type": "qwen3_vl", "auto_map": {"a": "b.py"}}'}, "never run"),
        ({"config.json": b'{"model_type": "qwen3_vl_moe"}'}, "as a mixture of experts"),
        ({"config.json": b"{"}, "not valid JSON"),
        ({"modules.json": b"[]"}, "has modules.json: it is an embedding model"),
    ],
)
def test_what_is_no_qwen3_vl_is_refused_before_its_weights_come(hub: Hub, change, words: str) -> None:
    files = hub.files | change
    hub.files = {name: data for name, data in files.items() if data is not None}
    assert words in refusal(BackendError)
    assert hub.downloads(WEIGHTS) == []


def newer(hub: Hub) -> None:
    """As transformers saves a folder since 5.3."""
    settings = json.loads(hub.files.pop("preprocessor_config.json"))
    hub.files["processor_config.json"] = json.dumps({"image_processor": settings}).encode()


def test_what_pull_calls_whole_has_the_image_settings_wherever_they_are(hub: Hub) -> None:
    newer(hub)
    folder = find(NAME).folder
    assert (folder / "processor_config.json").is_file()
    assert ImageLimits.read(folder) == ImageLimits.read(EMBEDDED_FOLDER)
    (folder / "processor_config.json").unlink()
    assert local(HubId(NAME)) is None


def test_a_repository_with_an_older_tokenizer_is_pulled_whole_and_read(hub: Hub) -> None:
    newer = json.loads(hub.files.pop("tokenizer.json"))
    added = {token["content"]: token["id"] for token in newer["added_tokens"]}
    special = [token["content"] for token in newer["added_tokens"] if token["special"]]
    settings = json.loads(hub.files["tokenizer_config.json"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in newer["model"]["merges"]]
    hub.files["vocab.json"] = json.dumps(newer["model"]["vocab"]).encode()
    hub.files["merges.txt"] = "\n".join(["#version: 0.2", *merges]).encode()
    hub.files["added_tokens.json"] = json.dumps(added).encode()
    hub.files["tokenizer_config.json"] = json.dumps(settings | {"extra_special_tokens": special}).encode()
    messages = (Message.of("user", "Which colours do you see?"),)
    pulled = PromptBuilder.read(find(NAME).folder)
    assert (
        pulled.plan(messages).ids.tolist() == PromptBuilder.read(EMBEDDED_FOLDER).plan(messages).ids.tolist()
    )
    (find(NAME).folder / "merges.txt").unlink()
    assert local(HubId(NAME)) is None


def test_files_of_an_older_tokenizer_are_not_downloaded_beside_the_newer(hub: Hub) -> None:
    hub.files |= {"vocab.json": b"{}", "merges.txt": b"", "added_tokens.json": b"{}"}
    model = find(NAME)
    assert [name for name in ("vocab.json", "merges.txt", "added_tokens.json") if hub.downloads(name)] == []
    assert local(HubId(NAME)) == model


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
    requests = len(hub.requests)
    assert find(NAME, offline=True) == pull(HubId(NAME), offline=True) == model
    assert len(hub.requests) == requests


def test_a_hub_that_is_not_there_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening: a connection is refused
        connect(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path)
        started = time.monotonic()
        assert "the hub did not deliver" in refusal(RequestError)
        assert time.monotonic() - started < 5


def test_the_commands_pull_show_list_and_remove(hub: Hub, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["models", "pull", NAME]) == 0
    out, err = capsys.readouterr()
    folder = Path(out.strip())
    assert err == ""
    assert (folder / WEIGHTS).is_file()
    assert run(["models", "path", NAME]) == 0
    assert capsys.readouterr().out == out
    assert run(["models", "show", "--json", NAME]) == 0
    size = sum(map(len, checkpoint().values()))
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["revision"], shown["size"]) == ("checkpoint", COMMIT, size)
    assert [entry.name for entry in local_models()] == ["scenes", NAME]
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
    pulled = pulling()
    assert (pulled.returncode, pulled.stderr) == (0, "")
    assert Path(pulled.stdout.strip()).is_relative_to(tmp_path / "hf")
    again = pulling(HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stdout) == (0, pulled.stdout)
