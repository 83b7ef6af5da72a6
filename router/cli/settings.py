"""Defaults from config.toml, a layer under the flags and the environment."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import click


def read_settings(group: click.Group) -> dict[str, dict[str, Any]]:
    """Every command's defaults from the file; click.UsageError names what no command knows."""
    file = Path(os.environ.get("HYBRID_CONFIG") or Path(click.get_app_dir("hybrid"), "config.toml"))
    if not file.is_file():
        if "HYBRID_CONFIG" in os.environ:
            raise click.UsageError(f"HYBRID_CONFIG names {file}, which is not a file")
        return {}
    try:
        said = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file} cannot be read: {error}") from None
    settings = {key.replace("-", "_"): value for key, value in said.items()}
    known = {name: {param.name for param in command.params} for name, command in group.commands.items()}
    for key in settings:
        if not any(key in names for names in known.values()):
            raise click.UsageError(f"{file} sets '{key}', which no command knows")
    return {name: {k: v for k, v in settings.items() if k in names} for name, names in known.items()}
