"""Options as fields of frozen dataclasses, and where their values come from.

Each option is declared where its value lives, and a command takes all of them as one argument::

    @options_class
    class PullOptions:
        offline: bool = option("--offline", is_flag=True, help="Do not ask the hub.")

    @click.command()
    @takes(PullOptions)
    def pull(options: PullOptions) -> None: ...

A flag wins over the environment (HYBRID_ and the option's longest flag), and that over config.toml.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar, dataclass_transform

import click

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_DECLARED = "declared"  # a field's metadata: its _Declaration, or the _Group it holds


class _Declaration(NamedTuple):
    """What click.option is called with, beside the field's name."""

    flags: tuple[str, ...]
    settings: Mapping[str, Any]


class _Group(NamedTuple):
    kind: type[DataclassInstance]
    declarations: Mapping[str, _Declaration]


@dataclass_transform(frozen_default=True)
def options_class(kind: type[T]) -> type[T]:
    """Make a class of options a frozen dataclass.

    It has no comparison and no repr: compiled for every class, they would delay each start of the program.
    """
    return dataclass(frozen=True, eq=False, repr=False)(kind)


def option(*flags: str, environment: bool = True, **settings: Any) -> Any:
    """A field that these flags set, with the settings of click.option.

    Its value is also read from HYBRID_ and the longest flag, unless it takes several or not ``environment``.
    """
    several = settings.get("multiple", False)
    if environment and not several:
        longest = max((flag for flag in flags if flag.startswith("--")), key=len)
        settings["envvar"] = "HYBRID_" + longest.lstrip("-").replace("-", "_").upper()
    unset: object = () if several else False if settings.get("is_flag") else None
    declaration = _Declaration(flags, settings)
    return field(default=settings.get("default", unset), metadata={_DECLARED: declaration})


def group(kind: type[Options], *names: str, **helps: str) -> Options:
    """A field that holds other options: all of ``kind``, or those of these names in this order.

    ``helps``: what --help says of an option here, by its name.
    """
    declared = _declarations(kind)
    chosen = {name: declared[name] for name in names or declared}
    for name, text in helps.items():
        chosen[name] = chosen[name]._replace(settings={**chosen[name].settings, "help": text})
    holder: Options = field(default_factory=kind, metadata={_DECLARED: _Group(kind, chosen)})
    return holder


def takes(kind: type[Options]) -> Callable[[Callable[Concatenate[Options, P], R]], Callable[P, R]]:
    """Declare the options of ``kind`` on a command, and give it their values as its first argument."""

    def decorate(command: Callable[Concatenate[Options, P], R]) -> Callable[P, R]:
        @wraps(command)
        def run(*args: P.args, **params: P.kwargs) -> R:
            return command(_collect(kind, params), *args, **params)

        declared: Callable[P, R] = run
        for name, (flags, settings) in reversed(_declarations(kind).items()):
            declared = click.option(*flags, name, **settings)(declared)
        return declared

    return decorate


def _declarations(kind: type[DataclassInstance]) -> dict[str, _Declaration]:
    """By the names of the fields that hold the values, in the order of --help."""
    declarations: dict[str, _Declaration] = {}
    for each in fields(kind):
        declared = each.metadata.get(_DECLARED)
        if isinstance(declared, _Group):
            declarations |= declared.declarations
        elif declared is not None:
            declarations[each.name] = declared
    return declarations


def _collect(kind: type[Options], params: dict[str, Any]) -> Options:
    """The options, taken out of click's values."""
    values: dict[str, Any] = {}
    for each in fields(kind):
        declared = each.metadata.get(_DECLARED)
        if isinstance(declared, _Group):
            values[each.name] = _collect(declared.kind, params)
        elif each.name in params:  # a group may be declared in part
            values[each.name] = params.pop(each.name)
    return kind(**values)


def read_defaults(commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """Each command's defaults from config.toml; click.UsageError names what no command knows."""
    file = Path(os.environ.get("HYBRID_CONFIG") or Path(click.get_app_dir("hybrid"), "config.toml"))
    if not file.is_file():
        if "HYBRID_CONFIG" in os.environ:
            raise click.UsageError(f"HYBRID_CONFIG names {file}, which is not a file")
        return {}
    import tomllib

    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file} cannot be read: {error}") from None
    defaults = {key.replace("-", "_"): value for key, value in document.items()}
    known = {name: {param.name for param in command.params} for name, command in commands.items()}
    for key in defaults:
        if not any(key in names for names in known.values()):
            raise click.UsageError(f"{file} sets '{key}', which no command knows")
    return {name: {k: v for k, v in defaults.items() if k in names} for name, names in known.items()}
