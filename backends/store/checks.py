"""Whether a folder is whole: a checkpoint by its small files and the headers of its weights, an export by
its manifest.

An export is checked by the sizes of its files, by the content of what is small or may have changed, or by
every byte. Nothing of a folder is run or followed out of it: weights are safetensors, files regular ones.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from backends.base import BackendError
from backends.store.manifest import MANIFEST, Manifest, sha256
from backends.store.tensors import check_plain
from backends.store.weights import Weights

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
# a tokenizer as it was saved before tokenizer.json, and read only where that is not there
OLDER_TOKENIZER = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")


def companions(names: Collection[str]) -> tuple[str, ...]:
    """Those of a folder's or a repository's files that are read beside the weights."""
    wanted = COMPANIONS if "tokenizer.json" in names else COMPANIONS + OLDER_TOKENIZER
    return tuple(name for name in wanted if name in names)


def lacking(names: Collection[str]) -> str | None:
    """What no file of these names could give, and an answer needs; None where nothing is missing for sure."""
    needs = {
        "config.json": ({"config.json"},),
        "tokenizer.json": ({"tokenizer.json"}, {"vocab.json", "merges.txt"}),
        "image settings (preprocessor_config.json or processor_config.json)": (
            {"preprocessor_config.json"},
            {"processor_config.json"},
        ),
        "chat template (chat_template.jinja or chat_template.json)": (
            {"chat_template.jinja"},
            {"chat_template.json"},
            {"tokenizer_config.json"},
            {"processor_config.json"},
        ),
    }
    for what, ways in needs.items():
        if not any(way <= set(names) for way in ways):
            return what
    return None


SMALL = 16 << 20  # bytes; a file up to this size is known by its content, a larger one by size and time


@dataclass(frozen=True)
class Damage:
    """A file that is not what the manifest says, and in which way."""

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file} {self.problem}"


def check_checkpoint(folder: Path) -> None:
    """BackendError ``model_invalid`` unless there is a config.json and every weights file is whole.

    Whole: there, as long as its header says, plain, and safetensors, since pickles can run code.
    """
    check_plain(folder)
    if not (folder / "config.json").is_file():
        raise BackendError(
            f"{folder} has no config.json: it is not a checkpoint folder", code="model_invalid"
        )
    Weights(folder)  # reads the headers


def check_sizes(folder: Path) -> Manifest:
    """The manifest, when every file is there, regular and as long as it says; nothing is read.

    BackendError ``model_invalid`` names every file that is not, with its size and the one expected.
    """
    manifest = Manifest.read(folder)
    _refuse(folder, [misfit for name in manifest.files if (misfit := _misfit(folder, manifest, name))])
    return manifest


def check_folder(folder: Path, seen: Path | None = None) -> Manifest:
    """As `check_sizes`, and the content of what is small or has changed since ``seen`` was written.

    ``seen`` is a file of ours elsewhere that remembers the time and place of what was read before.
    """
    manifest = check_sizes(folder)
    known = _read_seen(seen)
    current = {name: _state(folder / name) for name in manifest.files}
    doubtful = [
        name
        for name, file in manifest.files.items()
        if file.size <= SMALL or known.get(name) != current[name]
    ]
    _refuse(folder, _changed(folder, manifest, doubtful))
    if seen is not None and known != current:
        remember(folder, manifest, seen)
    return manifest


def verify_folder(folder: Path, progress: Callable[[str, int, int], None] | None = None) -> list[Damage]:
    """Read every file; name each one that is not what the manifest says, or why there is no manifest.

    ``progress`` is told each file's name, with the bytes read before it and the bytes of all.
    """
    try:
        manifest = Manifest.read(folder)
    except BackendError as error:
        return [Damage(MANIFEST, f"cannot be used: {error}")]
    damages: list[Damage] = []
    done = 0
    for name, file in manifest.files.items():
        if progress is not None:
            progress(name, done, manifest.size)
        misfit = _misfit(folder, manifest, name)
        damages += [misfit] if misfit else _changed(folder, manifest, [name])
        done += file.size
    return damages


def remember(folder: Path, manifest: Manifest, seen: Path) -> None:
    """Note that the files in ``folder`` were just written or read, and found right."""
    state = {name: _state(folder / name) for name in manifest.files}
    try:
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.write_text(json.dumps(state))
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else


def _refuse(folder: Path, damages: list[Damage]) -> None:
    if damages:
        raise BackendError(
            f"{folder} is damaged: {'; '.join(map(str, damages))}; export it again (hybrid export --force)",
            code="model_invalid",
        )


def _misfit(folder: Path, manifest: Manifest, name: str) -> Damage | None:
    """What is wrong with a file, as far as that shows without reading it."""
    expected = manifest.files[name].size
    try:
        status = (folder / name).stat(follow_symlinks=False)
    except FileNotFoundError:
        return Damage(name, f"is missing, {expected} bytes expected")
    if not stat.S_ISREG(status.st_mode):
        return Damage(name, "is not a regular file; links and devices are not followed")
    if status.st_nlink != 1:
        return Damage(name, "has another name elsewhere (a hard link); copy it instead")
    if status.st_size != expected:
        return Damage(name, f"has {status.st_size} bytes, {expected} expected")
    return None


def _changed(folder: Path, manifest: Manifest, names: list[str]) -> list[Damage]:
    damages = []
    for name in names:
        try:
            if sha256(folder / name) != manifest.files[name].sha256:
                damages.append(Damage(name, "has the right size and another content (sha256)"))
        except OSError as error:
            damages.append(Damage(name, f"cannot be read ({error.strerror})"))
    return damages


def _state(path: Path) -> list[int]:
    status = path.stat(follow_symlinks=False)
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read_seen(seen: Path | None) -> dict[str, list[int]]:
    try:
        known = json.loads(seen.read_bytes()) if seen is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
