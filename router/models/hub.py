"""Models of the Hugging Face hub: found in its cache on this machine, or pulled into it.

Only what a Qwen3-VL checkpoint needs is downloaded, and nothing that could run. A model is found when all
that the hub listed of it is there; it is pulled when every file has the hash that the hub lists.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from backends.base import BackendError, RequestError
from backends.qwen3vl import EMBEDDING_FILES, Config, check_files
from backends.store import (
    COMPANIONS,
    OLDER_TOKENIZER,
    Fields,
    check_checkpoint,
    check_space,
    companions,
    lacking,
)
from router.models.download import (
    Listing,
    cache,
    damaged_files,
    download,
    hub_errors,
    is_offline,
    listed_before,
    listing,
    remove_remains,
)
from router.models.exports import SILENT, Listener
from router.models.model import Model

MAIN = "main"
_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(@(?P<revision>\w[\w./-]{0,254}))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = re.compile(
    r"[^/]+\.safetensors|model\.safetensors\.index\.json|video_preprocessor_config\.json|"
    + "|".join(map(re.escape, COMPANIONS + OLDER_TOKENIZER + EMBEDDING_FILES))
)


@dataclass(frozen=True)
class HubId:
    """A repository of the hub, and a branch, tag or commit of it."""

    name: str
    revision: str = MAIN

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """``org/name`` or ``org/name@revision``; None when the text is neither."""
        match = _ID.fullmatch(text)
        if match is None or ".." in text or "--" in match["name"]:
            return None
        return cls(match["name"], match["revision"] or MAIN)

    def __str__(self) -> str:
        return self.name if self.revision == MAIN else f"{self.name}@{self.revision}"


def local(hub_id: HubId) -> Model | None:
    """The model, if the cache has all of it."""
    repository = _repository(hub_id)
    commit = hub_id.revision
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (repository / "refs" / commit).read_text().strip()
        except OSError:
            return None
    model = Model(hub_id.name, repository / "snapshots" / commit, commit)
    return model if _COMMIT.fullmatch(commit) and _is_whole(model) else None


def pulled() -> Iterator[Model]:
    """Every whole Qwen3-VL checkpoint in the cache."""
    for config in sorted(cache().glob("models--*--*/snapshots/*/config.json")):
        folder = config.parent
        name = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        model = Model(name, folder, folder.name)
        if _is_qwen3vl(config) and _is_whole(model):
            yield model


def pull(hub_id: HubId, listener: Listener = SILENT, *, offline: bool = False) -> Model:
    """The model as the hub has it now, downloaded where the cache lacks it, every file compared by its hash.

    RequestError ``model_not_found``: the hub has no such model or revision, or cannot be asked.
    BackendError ``model_invalid``: not a Qwen3-VL checkpoint, or other bytes than the hub lists.
    """
    if offline or is_offline():
        if (model := local(hub_id)) is not None:
            return model
        raise RequestError(
            f"'{hub_id}' is not whole on this machine, and the hub must not be asked (offline); "
            f"run 'hybrid models pull {hub_id}' where there is a network",
            code="model_not_found",
            param="model",
        )
    # an answer of a model that is here needs it too, other commands do not
    from router.prompt import PromptBuilder

    remove_remains(_repository(hub_id))
    with hub_errors(hub_id.name, hub_id.revision):
        listed = listing(hub_id.name, hub_id.revision, _WANTED)
        check_files(f"'{hub_id}'", listed.sizes)
        names = _needed(listed.sizes)
        _check_kind(hub_id, names)
        if _missing(hub_id, listed, names):
            # a look at the small files before the large ones come
            Config.read(_download(hub_id, listed, {"config.json"}, listener))
            PromptBuilder.read(_download(hub_id, listed, set(companions(names)), listener))
        folder = _download(hub_id, listed, names, listener)
    PromptBuilder.read(folder)
    check_checkpoint(folder)
    return Model(hub_id.name, folder, listed.commit)


def remove_pulled(model: Model) -> int:
    """Remove a pulled checkpoint from the cache; return the bytes that no other revision needs."""
    from huggingface_hub import scan_cache_dir

    assert model.revision is not None
    strategy = scan_cache_dir(cache()).delete_revisions(model.revision)
    strategy.execute()
    return int(strategy.expected_freed_size)


def _needed(listed: Collection[str]) -> set[str]:
    """Of the files that a checkpoint may have, those that are read of this one."""
    unread = {*OLDER_TOKENIZER, *EMBEDDING_FILES}.difference(companions(listed))
    return set(listed) - unread


def _check_kind(hub_id: HubId, files: Collection[str]) -> None:
    if (lack := lacking(files)) is not None:
        raise BackendError(f"'{hub_id}' has no {lack}: it is not a Qwen3-VL checkpoint", code="model_invalid")
    if not any(name.endswith(".safetensors") for name in files):
        raise BackendError(
            f"'{hub_id}' has no safetensors weights; others can run code, and are not pulled",
            code="model_invalid",
        )


def _missing(hub_id: HubId, listed: Listing, names: set[str]) -> int:
    """Bytes of these files that are not in the cache."""
    folder = _repository(hub_id) / "snapshots" / listed.commit
    return sum(listed.sizes[name] for name in names if not (folder / name).exists())


def _download(hub_id: HubId, listed: Listing, names: set[str], listener: Listener) -> Path:
    """Bring these files into the cache; one that turns out wrong is removed and asked for once more."""
    check_space(_repository(hub_id), _missing(hub_id, listed, names))
    for _ in range(2):
        folder = download(listed, names, hub_id.revision, listener.progress)
        wrong = sorted(damaged_files(listed) & names)
        if not wrong:
            return folder
        for name in wrong:
            (folder / name).resolve().unlink(missing_ok=True)
            (folder / name).unlink(missing_ok=True)
    raise BackendError(
        f"'{hub_id}': {', '.join(wrong)} arrived with other bytes than the hub lists, and were removed; "
        "try again later, or through another network",
        code="model_invalid",
    )


def _repository(hub_id: HubId) -> Path:
    return cache() / f"models--{hub_id.name.replace('/', '--')}"


def _is_whole(model: Model) -> bool:
    """Whether nothing that the hub listed is missing or short; where no list is kept, its weights."""
    try:
        check_checkpoint(model.folder)
    except BackendError:
        return False
    assert model.revision is not None
    listed = listed_before(model.name, model.revision, _WANTED)
    if listed is None:
        return lacking([file.name for file in model.folder.iterdir()]) is None
    files = [(model.folder / name, listed[name]) for name in _needed(listed)]
    return all(file.is_file() and file.stat().st_size == size for file, size in files)


def _is_qwen3vl(config: Path) -> bool:
    try:
        return Fields.read(config).values.get("model_type") == "qwen3_vl"
    except BackendError:
        return False
