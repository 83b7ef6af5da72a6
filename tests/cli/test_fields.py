"""Options as fields: declared once, set by flags, the environment and config.toml, and passed on typed."""

from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from router.cli.bench import BenchOptions, bench
from router.cli.chat import ChatOptions, chat
from router.cli.doctor import DoctorOptions, doctor
from router.cli.export import ExportOptions, export
from router.cli.fields import group, option, options_class, takes
from router.cli.generate import GenerateOptions, generate
from router.cli.models import PullOptions, pull
from router.cli.options import ModelOptions, RuntimeOptions, SamplingOptions
from router.cli.route import RouteOptions, route
from router.cli.serve import ServeOptions, serve
from router.cli.verify import VerifyOptions, verify
from router.types import Sampling

COMMANDS = {
    generate: GenerateOptions,
    chat: ChatOptions,
    route: RouteOptions,
    serve: ServeOptions,
    bench: BenchOptions,
    export: ExportOptions,
    verify: VerifyOptions,
    pull: PullOptions,
    doctor: DoctorOptions,
}


@options_class
class Inner:
    size: int = option("-s", "--size", type=int, default=3, help="How large.")
    colours: tuple[str, ...] = option("--colour", multiple=True, help="Which colours.")


@options_class
class Outer:
    inner: Inner = group(Inner, "size", size="How large here.")
    quiet: bool = option("--quiet", environment=False, is_flag=True)


def given(kind: Any, *arguments: str, **environment: str) -> dict[str, object]:
    """The values that a command which takes ``kind`` is given when it is called with these."""
    seen: list[dict[str, object]] = []

    @click.command()
    @takes(kind)
    def command(options: Any) -> None:
        seen.append(asdict(options))

    result = CliRunner().invoke(command, arguments, env=environment)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_flags_become_one_typed_value() -> None:
    assert given(Outer, "-s", "4", "--quiet") == asdict(Outer(Inner(4), quiet=True))
    assert given(Inner, "--colour", "red", "--colour", "blue") == asdict(Inner(colours=("red", "blue")))


def test_a_group_may_be_declared_in_part_and_with_its_own_help() -> None:
    @click.command()
    @takes(Outer)
    def command(options: Outer) -> None: ...

    shown = CliRunner().invoke(command, ["--help"]).output
    assert "How large here." in shown
    assert "How large." not in shown
    assert "--colour" not in shown
    assert CliRunner().invoke(command, ["--colour", "red"]).exit_code == 2


def test_the_environment_sets_what_takes_one_value_unless_it_is_kept_out() -> None:
    assert given(Inner, HYBRID_SIZE="5", HYBRID_COLOUR="red") == asdict(Inner(5))
    assert given(Inner, "-s", "4", HYBRID_SIZE="5") == asdict(Inner(4))
    assert given(Outer, HYBRID_QUIET="1") == asdict(Outer())


@pytest.mark.parametrize(("command", "kind"), COMMANDS.items(), ids=lambda item: getattr(item, "name", ""))
def test_a_class_of_options_without_values_is_its_command_without_flags(command, kind) -> None:
    assert given(kind) == asdict(kind())
    assert given(Inner, "-s", "4") != asdict(Inner())


@pytest.mark.parametrize(("command", "kind"), COMMANDS.items(), ids=lambda item: getattr(item, "name", ""))
def test_every_option_of_a_command_is_a_field(command: click.Command, kind: type) -> None:
    def leaves(kind: type) -> set[str]:
        """The fields that hold values, also those of the groups."""
        names: set[str] = set()
        for each in fields(kind):
            value = getattr(kind(), each.name)
            names |= leaves(type(value)) if is_dataclass(value) else {each.name}
        return names

    options = {param.name for param in command.params if isinstance(param, click.Option)}
    assert options
    assert options <= leaves(kind)
    assert not options <= leaves(Inner)


def test_a_misspelt_option_fails_at_the_call() -> None:
    with pytest.raises(TypeError, match="modle"):
        ModelOptions(modle="scenes")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no_export_at_all"):
        replace(ModelOptions(), no_export_at_all=True)  # type: ignore[call-arg]
    with pytest.raises(FrozenInstanceError):
        ModelOptions().model = "scenes"  # type: ignore[misc]


def test_every_sampling_option_reaches_the_loop_under_its_own_name() -> None:
    by_flag = {each.name for each in fields(SamplingOptions)} - {"preset", "greedy"}
    assert by_flag == {each.name for each in fields(Sampling)} - {"stop_token_ids"}  # an API's alone
    sampling = SamplingOptions(top_k=3, stop=("END",), logit_bias=("42=-5",), seed=7).to_sampling()
    assert sampling == Sampling(top_k=3, stop=("END",), logit_bias=((42, -5.0),), seed=7)
    assert SamplingOptions(greedy=True, seed=7).to_sampling().temperature == 0


def test_runtime_options_are_those_of_backends() -> None:
    runtime = RuntimeOptions(device="cpu", dtype="fp32", vision="torch", threads=2).to_runtime()
    assert (runtime.device, runtime.dtype, runtime.vision, runtime.threads) == ("cpu", "fp32", "torch", 2)


def test_a_command_with_options_has_its_arguments_beside_them() -> None:
    seen: list[tuple[int, str]] = []

    @click.command()
    @click.argument("name")
    @takes(Inner)
    def command(options: Inner, name: str) -> None:
        seen.append((options.size, name))

    assert CliRunner().invoke(command, ["a name", "-s", "1"]).exit_code == 0
    assert seen == [(1, "a name")]
