"""Every client, every check, against one ``hybrid serve`` of the embedded model; prints a table.

    python -m benchmarks.clients                    # makes the environments, where they are not there yet
    python -m benchmarks.clients openai llm         # only these

Nothing but the address and the key is set, by the variables that clients read: OPENAI_BASE_URL and
OPENAI_API_KEY. The exit code says whether every check passed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.served import ROOT, served

HERE = Path(__file__).parent
KEY = "a-key-of-this-run"
CHECKS = (
    "text", "image", "stream", "structured", "unknown_model", "bad_image", "wrong_key", "cancel",
)  # fmt: skip
LONGEST_SECONDS = 300.0  # for all checks of one client


@dataclass(frozen=True)
class Client:
    """A client's package, and the script that drives it."""

    name: str
    script: str
    package: str

    def environment(self, folder: Path) -> Path:
        """The folder with the package in it; it is installed at the first call."""
        home = folder / self.name
        if not home.exists():
            home.mkdir(parents=True)
            for command in self._install(home):
                subprocess.run(command, cwd=home, check=True, stdout=sys.stderr)
        return home

    def command(self, home: Path) -> list[str]:
        """What runs the checks."""
        return [str(home / "bin" / "python"), str(HERE / self.script)]

    def version(self, home: Path) -> str:
        """Of the package."""
        distribution = self.package.partition("[")[0]
        ask = f"from importlib.metadata import version; print(version({distribution!r}))"
        return _said([str(home / "bin" / "python"), "-c", ask], home)

    def _install(self, home: Path) -> list[list[str]]:
        python = str(home / "bin" / "python")
        return [[sys.executable, "-m", "venv", "."], [python, "-m", "pip", "install", "-q", self.package]]


class NodeClient(Client):
    """A client of Node."""

    def command(self, home: Path) -> list[str]:
        """What runs the checks."""
        return ["node", str(HERE / self.script)]

    def version(self, home: Path) -> str:
        """Of the package."""
        return _said(["node", "-p", f"require('./node_modules/{self.package}/package.json').version"], home)

    def _install(self, home: Path) -> list[list[str]]:
        return [["npm", "init", "--yes"], ["npm", "install", "--silent", self.package]]


CLIENTS = (
    Client("openai", "openai_python.py", "openai"),
    NodeClient("node", "openai_node.mjs", "openai"),
    Client("litellm", "litellm_python.py", "litellm"),
    Client("langchain-openai", "langchain_openai_python.py", "langchain-openai"),
    Client("pydantic-ai", "pydantic_ai_python.py", "pydantic-ai-slim[openai]"),
    Client("instructor", "instructor_python.py", "instructor"),
    Client("llm", "llm_command.py", "llm"),
)


@dataclass(frozen=True)
class Tried:
    """What a client wrote: a line for each check."""

    output: str

    @cached_property
    def found(self) -> dict[str, str]:
        """What became of each check."""
        lines = (line.partition("\t") for line in self.output.splitlines())
        told = {name: said for name, tab, said in lines if tab and name in CHECKS}
        return {name: told.get(name, "it did not come to that") for name in CHECKS}


def try_client(client: Client, home: Path, url: str) -> Tried:
    """All checks of one client."""
    told = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY}
    sample = ROOT / "router" / "scenes" / "samples" / "quadrants.png"
    # litellm otherwise fetches a list of prices when it is imported
    others = {"IMAGE": str(sample), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environment = {**os.environ, **told, **others}
    done = subprocess.run(
        client.command(home),
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    return Tried(done.stdout)


def table(rows: dict[str, Tried]) -> Table:
    """Clients x checks."""
    made = Table("client", *CHECKS)
    for name, tried in rows.items():
        cells = ("pass" if said == "pass" else "[red]FAIL[/red]" for said in tried.found.values())
        made.add_row(name, *cells)
    return made


def main() -> None:
    """Try the clients one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of clients; all of them by default")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "hybrid-clients")
    said = parser.parse_args()
    chosen = [client for client in CLIENTS if not said.names or client.name in said.names]
    homes = {client: client.environment(said.folder.resolve()) for client in chosen}
    console, rows = Console(width=120), {}
    with served(HYBRID_API_KEY=KEY) as server:
        for client, home in homes.items():
            rows[f"{client.name} {client.version(home)}"] = try_client(client, home, f"{server.address}/v1")
    console.print(table(rows))
    wrong = [
        f"{name}, {check}: {said}"
        for name, tried in rows.items()
        for check, said in tried.found.items()
        if said != "pass"
    ]
    for line in wrong:
        console.print(line, markup=False, highlight=False)
    raise SystemExit(bool(wrong))


def _said(command: list[str], home: Path) -> str:
    return subprocess.run(command, cwd=home, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
