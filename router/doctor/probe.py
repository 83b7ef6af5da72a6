"""The process in which one backend is tried: what goes wrong here ends this process and nothing else.

Its `main` reads an `Order` as JSON from the command line and writes lines of JSON into the order's ``output``
as it goes on, each an object whose entries add to those before it: ``stage``, ``percent`` of an export,
``capability``, ``load_seconds`` and ``export_seconds``, ``text`` and ``image`` (a `FirstToken`'s fields),
``peak_bytes``; and how it came out: ``refused``, ``too_large``, ``error``; ``ended`` unless it was torn down.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import backends
from backends.base import BackendError, RequestError, Runtime
from backends.machine import available_memory, peak_bytes
from router.estimates import footprint
from router.images import open_image
from router.models import Listener, Model, ensure_export
from router.router import Router
from router.types import Chunks, Message, Picture, Request, Sampling

Write: TypeAlias = Callable[..., None]  # values by name: one line of the output

EXPORTING = "exporting the model"  # a stage that may take as long as it needs
# the embedded model begins its answer to the second with another word when it sees no image
TEXT = "What can you do?"
ABOUT_IMAGE = "What colour is the top left?"
IMAGE = Path(__file__).parent.parent / "scenes" / "samples" / "quadrants.png"
_OF_ONE_PROCESS = "only the process that registered it has it; the entry point hybrid.backends is for all"
_PARENT_DIES = 1  # linux/prctl.h: PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Order:
    """What to try, and where its results go."""

    backend: str
    model: Model
    runtime: Runtime
    run: bool
    output: Path

    def as_json(self) -> str:
        """For the command line of the process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def parse(cls, text: str) -> Order:
        """What `as_json` wrote."""
        fields = json.loads(text)
        model, runtime = fields["model"], fields["runtime"]
        model["folder"] = Path(model["folder"])
        runtime["checkpoint"] = runtime["checkpoint"] and Path(runtime["checkpoint"])
        return cls(
            fields["backend"], Model(**model), Runtime(**runtime), fields["run"], Path(fields["output"])
        )


def main() -> None:
    """Try what the order says; every failure that Python sees is written down, not raised."""
    _be_first_to_end()
    order = Order.parse(sys.argv[1])
    with order.output.open("a", encoding="utf-8", buffering=1) as stream:

        def write(**values: Any) -> None:
            stream.write(json.dumps(values | {"peak_bytes": peak_bytes()}) + "\n")

        try:
            _try(order, write)
        except BackendError as error:
            write(**{"refused" if error.code == "backend_unavailable" else "error": str(error)})
        except RequestError as error:
            # registered in the process that asks, which this one knows nothing of
            is_unknown = error.code == "backend_not_found"
            write(**{"refused": _OF_ONE_PROCESS} if is_unknown else {"error": str(error)})
        except Exception as error:  # whatever the backend of another package may raise
            write(error=f"{type(error).__name__}: {error}")
        write(ended=True)  # and not by an exit that a library took
    # a library that hangs as it is torn down would be taken for one that cannot answer
    os._exit(0)


def _try(order: Order, write: Write) -> None:
    write(stage="asking what it can do")
    capability = backends.capability(order.backend, order.runtime.device)
    write(capability=asdict(capability))
    if capability.problem is not None or not order.run:
        return
    router = Router(order.model, order.runtime)
    about_text = _request(order.backend, TEXT)
    write(stage="asking every backend what it can do")  # which imports those of other packages
    router.decide(about_text)  # refuses a checkpoint's backend for an export
    if problem := too_large(order, capability.traits):
        write(too_large=problem)
        return
    if capability.traits.reads_export:
        _export(order.model, write)
    write(stage="loading")
    started = time.perf_counter()
    answer = router.answer(about_text)
    write(load_seconds=time.perf_counter() - started, stage="answering a text")
    write(text=_first_token(answer.chunks))
    if capability.traits.sees_images:
        write(stage="answering about an image")
        answer = router.answer(_request(order.backend, open_image(IMAGE), ABOUT_IMAGE))
        write(image=_first_token(answer.chunks))


def _export(model: Model, write: Write) -> None:
    started = time.perf_counter()
    write(stage=EXPORTING)
    ensure_export(model, listener=Listener(_percent(write)))
    write(export_seconds=time.perf_counter() - started)


def _request(backend: str, *parts: str | Picture) -> Request:
    return Request((Message.of("user", *parts),), Sampling(max_tokens=1, temperature=0.0), backend)


def _first_token(chunks: Chunks) -> dict[str, Any]:
    with closing(chunks):
        (chunk,) = chunks
    assert chunk.stats is not None
    return {"seconds": chunk.stats.first_token_seconds, "id": chunk.tokens[0], "text": chunk.text}


def too_large(order: Order, traits: backends.Traits) -> str | None:
    """Why it is better not tried: a system without memory stands still for minutes, or ends what it likes."""
    if order.runtime.device == "cuda" or traits.for_tests:
        return None
    need, free = footprint(order.model, traits, order.runtime), available_memory()
    if free is None or need.verdict(free) != "does not fit":
        return None
    return f"needs about {need.total / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"


def _percent(write: Write) -> Callable[[str, int, int], None]:
    """Writes how far an export is, at each percent."""
    written = -1

    def progress(_name: str, done: int, total: int) -> None:
        nonlocal written
        if (percent := 100 * done // max(total, 1)) > written:
            written = percent
            write(percent=percent)

    return progress


def _be_first_to_end() -> None:
    """When memory runs out end this process before any other, and end it with the one that started it."""
    with suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGKILL)
