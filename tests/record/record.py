"""The whole record, face by face."""

from collections.abc import Iterator

from tests.record import cli, http, library
from tests.record.workspace import workspace


def lines() -> Iterator[str]:
    """Every case under a heading of its own; the process's environment and folder are changed meanwhile."""
    with workspace() as space:
        for face in (cli, library, http):
            for name, told in face.record(space):
                yield from (f"=== {name}", *told, "")
