"""Reads wordings.toml: every question family's templates with their phrases put in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_READ = tomllib.loads(Path(__file__).with_name("wordings.toml").read_text())
_PHRASE = re.compile(r"<(\w+)>")


def _templates(raw: list[str]) -> tuple[str, ...]:
    filled = []
    for template in raw:
        while _PHRASE.search(template):  # phrases may hold phrases
            template = _PHRASE.sub(lambda match: str(_READ["phrases"][match[1]]), template)
        filled.append(template)
    return tuple(filled)


LIST: dict[str, tuple[str, ...]] = {kind: _templates(raw) for kind, raw in _READ["list"].items()}
ASK: dict[str, tuple[str, ...]] = {name: _templates(raw) for name, raw in _READ["ask"].items()}
UNSEEN: dict[str, tuple[str, ...]] = {kind: tuple(raw) for kind, raw in _READ["unseen"].items()}
CHAT: tuple[tuple[tuple[str, ...], str, float], ...] = tuple(
    (_templates(block["questions"]), block["answer"], block["weight"]) for block in _READ["chat"]
)
