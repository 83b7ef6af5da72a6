"""A folder of images and files to ask about, and an environment that nothing outside reaches into."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

ROOT = Path(__file__).parents[2]
SCENES = ROOT / "router" / "scenes"
ANSWER = "I see red, green, blue and yellow."
COLUMNS = 100  # of the terminal that help and tables are made for


@dataclass(frozen=True)
class Workspace:
    """``folder`` holds what is asked about and is the current one; ``home`` holds what the product makes."""

    folder: Path
    home: Path

    @property
    def names(self) -> dict[str, str]:
        """What folders of this machine are called in the record."""
        return {str(self.folder): "<folder>", str(self.home): "<home>", str(SCENES): "<scenes>"}


def script(text: str = ANSWER, **faults: Any) -> str:
    """What HYBRID_SCRIPT holds for the scripted backend to say ``text``; ``faults``: more of its fields."""
    ids = Tokenizer.from_file(str(SCENES / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    ends = json.loads((SCENES / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    return json.dumps({"tokens": [*ids, min(ends)], **faults})


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Variables set, or unset where they are None, and put back afterwards."""
    before = dict(os.environ)
    try:
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Made for one record and removed after it."""
    with TemporaryDirectory() as made:
        base = Path(made).resolve()
        space = Workspace(base / "asked", base / "home")
        space.folder.mkdir()
        _fill(space.folder)
        with environment(**_variables(base, space.home)), chdir(space.folder):
            yield space


def _variables(base: Path, home: Path) -> dict[str, str | None]:
    outside = [
        name
        for name in os.environ
        if name.startswith(("HYBRID_", "HF_", "HUGGINGFACE_", "OPENAI_", "PYTEST_"))
    ]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **dict.fromkeys(outside),
        "PYTHONPATH": os.pathsep.join(paths),
        "HYBRID_HOME": str(home),
        "HF_HOME": str(base / "hub"),
        "HF_HUB_OFFLINE": "1",
        "XDG_CONFIG_HOME": str(base / "config"),
        "COLUMNS": str(COLUMNS),
        "LINES": "50",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "FORCE_COLOR": None,
    }


def _fill(folder: Path) -> None:
    for name in ("quadrants.png", "shapes.png"):
        shutil.copy(SCENES.joinpath("samples", name), folder / name)
    whole = (folder / "quadrants.png").read_bytes()
    (folder / "damaged.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no image", "utf-8")
    (folder / "schema.json").write_text('{"enum": ["red", "green"]}', "utf-8")
    (folder / "empty").mkdir()
    (folder / "empty" / "config.json").write_text("{}", "utf-8")
