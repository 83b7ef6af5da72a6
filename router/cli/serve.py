"""``hybrid serve``: the same answers over HTTP, as OpenAI's clients ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.fields import group, option, options_class, takes
from router.cli.options import POSITIVE_SECONDS, ModelOptions
from router.cli.terminal import progress_bar

if TYPE_CHECKING:
    from router.server import Settings

_COUNT = click.IntRange(min=1)


@options_class
class ServeOptions:
    """Which model is served, where, for whom, and how much is taken on."""

    router: ModelOptions = group(ModelOptions)
    host: str = option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="Listen on this address; one that others reach needs a key.",
    )
    port: int = option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        show_default=True,
        metavar="N",
        help="Listen on this port; 0 takes a free one.",
    )
    api_key: str | None = option("--api-key", metavar="KEY", help="Only in the environment: HYBRID_API_KEY.")
    api_key_file: Path | None = option(
        "--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="API keys, one on each line."
    )
    served_model_name: str | None = option(
        "--served-model-name", metavar="NAME", help="Serve the model under this name."
    )
    allowed_hosts: str = option(
        "--allowed-hosts",
        default="",
        metavar="A,B",
        help="Names by which this server may be called, beside localhost.",
    )
    cors_origins: str = option(
        "--cors-origins",
        default="",
        metavar="A,B",
        help="Web pages that may call it, such as https://app.example.",
    )
    allowed_image_hosts: str = option(
        "--allowed-image-hosts",
        default="",
        metavar="A,B",
        help="Hosts from which images may be fetched; none by default.",
    )
    max_concurrency: int = option(
        "--max-concurrency",
        type=_COUNT,
        default=4,
        show_default=True,
        metavar="N",
        help="Answers computed at once.",
    )
    max_queue: int = option(
        "--max-queue",
        type=click.IntRange(min=0),
        default=8,
        show_default=True,
        metavar="N",
        help="Requests that may wait for them.",
    )
    request_timeout: float = option(
        "--request-timeout",
        type=POSITIVE_SECONDS,
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="Give an answer up after this long.",
    )
    drain_timeout: float = option(
        "--drain-timeout",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="When terminated, finish answers for this long.",
    )
    sse_ping_interval: float = option(
        "--sse-ping-interval",
        type=POSITIVE_SECONDS,
        default=15.0,
        show_default=True,
        metavar="SECONDS",
        help="Keep silent streams alive by a comment.",
    )
    max_image_bytes: int = option(
        "--max-image-bytes",
        type=_COUNT,
        default=20_000_000,
        show_default=True,
        metavar="N",
        help="Refuse image files above N bytes.",
    )
    max_image_pixels: int = option(
        "--max-image-pixels",
        type=_COUNT,
        default=40_000_000,
        show_default=True,
        metavar="N",
        help="Refuse to decode images above N pixels.",
    )
    max_images: int = option(
        "--max-images",
        type=_COUNT,
        default=8,
        show_default=True,
        metavar="N",
        help="Refuse requests of more images.",
    )
    max_pixels: int | None = option(
        "--max-pixels", type=_COUNT, metavar="N", help="Shrink images above N pixels."
    )
    ctx_size: int | None = option(
        "-c",
        "--ctx-size",
        type=_COUNT,
        metavar="N",
        help="Most tokens of a prompt and its answer, if fewer than the model's.",
    )
    log_json: bool = option("--log-json", is_flag=True, help="Write the log as JSON.")


@click.command()
@takes(ServeOptions)
@click.pass_context
def serve(context: click.Context, options: ServeOptions) -> None:
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
    from router.server import serve as run_server

    with progress_bar("reading the model") as listener:
        model = find(options.router.model, listener, offline=options.router.offline)
    log.set_up(options.log_json)
    router = options.router.make_router(
        Listener(notice=log.info), model, context=options.ctx_size, max_images=options.max_images
    )
    app = create_app(router, settings)
    socket = listen(settings, options.port)
    host = f"[{settings.bound}]" if ":" in settings.bound else settings.bound
    click.echo(f"hybrid: serving {model.name} on http://{host}:{socket.getsockname()[1]}", err=True)
    if (signal_number := run_server(app, socket)) is not None:
        raise SystemExit(128 + signal_number)


def _check_key_source(context: click.Context) -> None:
    source = context.get_parameter_source("api_key")
    if source == click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError(
            "a key on the command line is seen by everyone on this machine; "
            "set HYBRID_API_KEY or give --api-key-file"
        )


def _settings(options: ServeOptions) -> Settings:
    from router.images import InputLimits
    from router.server import MIB, Settings
    from router.server.access import is_loopback

    keys = _keys(options.api_key, options.api_key_file)
    largest = options.max_image_bytes
    host = options.host.strip("[]")
    if not keys and not is_loopback(host):
        raise click.UsageError(
            f"on {host} others can reach this server; give it a key: --api-key-file FILE or HYBRID_API_KEY"
        )
    return Settings(
        name=options.served_model_name,
        backend=options.router.named_backend,
        policy=options.router.policy,
        bound=host,
        max_concurrency=options.max_concurrency,
        max_queue=options.max_queue,
        request_timeout=options.request_timeout,
        drain_timeout=options.drain_timeout,
        ping_interval=options.sse_ping_interval,
        max_pixels=options.max_pixels,
        images=InputLimits(largest, options.max_image_pixels, options.max_images),
        max_body=max(Settings.max_body, largest * 4 // 3 + MIB),  # one image in base64, and some text
        image_hosts=_list(options.allowed_image_hosts.lower()),
        hosts=_list(options.allowed_hosts),
        origins=_list(options.cors_origins),
        keys=keys,
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(part for piece in text.split(",") if (part := piece.strip()))


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
