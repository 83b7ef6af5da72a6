"""``hybrid serve``: the same answers over HTTP, as OpenAI's clients ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import make_router, model_options, option
from router.cli.terminal import listening

if TYPE_CHECKING:
    from router.server import Settings

_SECONDS = click.FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1)


def serve_options(command: Any) -> Any:
    """Where to listen, for whom, and how much is taken on."""
    for decorate in reversed(
        [
            option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
                   help="Listen on this address; one that others reach needs a key."),
            option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="N",
                   help="Listen on this port; 0 takes a free one."),
            option("--api-key", metavar="KEY", help="Only in the environment: HYBRID_API_KEY."),
            option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE",
                   help="API keys, one on each line."),
            option("--served-model-name", metavar="NAME", help="Serve the model under this name."),
            option("--allowed-hosts", default="", metavar="A,B",
                   help="Names by which this server may be called, beside localhost."),
            option("--cors-origins", default="", metavar="A,B",
                   help="Web pages that may call it, such as https://app.example."),
            option("--allowed-image-hosts", default="", metavar="A,B",
                   help="Hosts from which images may be fetched; none by default."),
            option("--max-concurrency", type=_COUNT, default=4, show_default=True, metavar="N",
                   help="Answers computed at once."),
            option("--max-queue", type=click.IntRange(min=0), default=8, show_default=True, metavar="N",
                   help="Requests that may wait for them."),
            option("--request-timeout", type=_SECONDS, default=600.0, show_default=True, metavar="SECONDS",
                   help="Give an answer up after this long."),
            option("--drain-timeout", type=click.FloatRange(min=0), default=10.0, show_default=True,
                   metavar="SECONDS", help="When terminated, finish answers for this long."),
            option("--sse-ping-interval", type=_SECONDS, default=15.0, show_default=True, metavar="SECONDS",
                   help="Keep silent streams alive by a comment."),
            option("--max-image-bytes", type=_COUNT, default=20_000_000, show_default=True, metavar="N",
                   help="Refuse image files above N bytes."),
            option("--max-image-pixels", type=_COUNT, default=40_000_000, show_default=True, metavar="N",
                   help="Refuse to decode images above N pixels."),
            option("--max-images", type=_COUNT, default=8, show_default=True, metavar="N",
                   help="Refuse requests of more images."),
            option("--max-pixels", type=_COUNT, metavar="N", help="Shrink images above N pixels."),
            option("-c", "--ctx-size", type=_COUNT, metavar="N",
                   help="Most tokens of a prompt and its answer, if fewer than the model's."),
            option("--log-json", is_flag=True, help="Write the log as JSON."),
        ]
    ):  # fmt: skip
        command = decorate(command)
    return command


@click.command()
@model_options
@serve_options
@click.pass_context
def serve(context: click.Context, /, **options: Any) -> None:
    """Serve OpenAI's API on this machine until it is told to end.

    \b
    hybrid serve
    hybrid serve -m Qwen/Qwen3-VL-2B-Instruct --port 9000
    HYBRID_API_KEY=... hybrid serve --host 0.0.0.0 --allowed-hosts images.example

    Ctrl-C or SIGTERM lets running answers end first; a second one does not.
    """
    _check_key_source(context)
    settings = _settings(options)
    from router.models import Listener, find
    from router.server import create_app, listen, log
    from router.server import serve as run

    with listening("reading the model") as listener:
        model = find(options["model"], listener, offline=options["offline"])
    log.set_up(options["log_json"])
    app = create_app(make_router(options, Listener(notice=log.notice), model), settings)
    socket = listen(settings, options["port"])
    host = f"[{settings.bound}]" if ":" in settings.bound else settings.bound
    click.echo(f"hybrid: serving {model.name} on http://{host}:{socket.getsockname()[1]}", err=True)
    if (number := run(app, socket)) is not None:
        raise SystemExit(128 + number)


def _check_key_source(context: click.Context) -> None:
    source = context.get_parameter_source("api_key")
    if source == click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError(
            "a key on the command line is seen by everyone on this machine; "
            "set HYBRID_API_KEY or give --api-key-file"
        )


def _settings(options: dict[str, Any]) -> Settings:
    from router.images import InputLimits
    from router.server.access import is_loopback
    from router.server.settings import MIB, Settings

    keys = _keys(options["api_key"], options["api_key_file"])
    largest = options["max_image_bytes"]
    host = options["host"].strip("[]")
    if not keys and not is_loopback(host):
        raise click.UsageError(
            f"on {host} others can reach this server; give it a key: --api-key-file FILE or HYBRID_API_KEY"
        )
    return Settings(
        name=options["served_model_name"],
        backend=None if options["backend"] == "auto" else options["backend"],
        policy=options["policy"],
        bound=host,
        max_concurrency=options["max_concurrency"],
        max_queue=options["max_queue"],
        request_timeout=options["request_timeout"],
        drain_timeout=options["drain_timeout"],
        ping_interval=options["sse_ping_interval"],
        max_pixels=options["max_pixels"],
        images=InputLimits(largest, options["max_image_pixels"], options["max_images"]),
        max_body=max(Settings.max_body, largest * 4 // 3 + MIB),  # one image in base64, and some text
        image_hosts=_list(options["allowed_image_hosts"].lower()),
        hosts=_list(options["allowed_hosts"]),
        origins=_list(options["cors_origins"]),
        keys=keys,
    )


def _list(said: str) -> tuple[str, ...]:
    return tuple(part for piece in said.split(",") if (part := piece.strip()))


def _keys(key: str | None, file: Path | None) -> tuple[bytes, ...]:
    from backends.base import RequestError
    from router.server.access import parse_keys

    try:
        given = parse_keys(key) if key is not None else ()
        return given + (parse_keys(file.read_text("utf-8")) if file is not None else ())
    except RequestError as error:
        name = "HYBRID_API_KEY" if key is not None and file is None else str(file)
        raise click.UsageError(f"{name}: {error}") from None
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from None
