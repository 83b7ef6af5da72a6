"""The OpenAPI document says what the server does, and the server does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.conftest import Served

HERE = Path(__file__).parent
RUN = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]


def examined(served: Served, folder: Path, *arguments: str) -> str:
    """What schemathesis says of the running server."""
    url = f"http://127.0.0.1:{served.port}/openapi.json"
    command = [*RUN, "--config-file", str(HERE / "schemathesis.toml"), "run", url, "--no-color", *arguments]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.server.schema_hooks",
        "PYTHONPATH": str(HERE.parent.parent),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_generated_requests_get_what_the_document_says(served: Served, tmp_path: Path) -> None:
    said = examined(served, tmp_path, "--phases", "fuzzing", "--max-examples", "10", "--seed", "1")
    found = re.search(r"(\d+) generated", said)
    assert found, said
    assert int(found[1]) > 30
    told = served.client.get("/metrics").text
    answers = re.findall(r'hybrid_requests_total{.*finish_reason="stop".*} (\d+)', told)
    assert sum(map(int, answers)) > 3, "some of them reach the model"


@pytest.mark.slow
def test_many_generated_requests_get_what_the_document_says(served: Served, tmp_path: Path) -> None:
    said = examined(served, tmp_path, "--max-examples", "200")
    assert "Coverage" in said
    assert "Stateful" in said


def test_the_document_names_every_status_and_nothing_of_the_frameworks_own(served: Served) -> None:
    text = served.client.get("/openapi.json").text
    assert "HTTPValidationError" not in text
    assert '"detail"' not in text.replace('"detail":{"anyOf"', "")
    document = served.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/route",
        "/v1/models",
        "/v1/models/{model}",
        "/health",
        "/readyz",
        "/livez",
        "/metrics",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert "403" in operation["responses"]
            assert ("401" in operation["responses"]) == (path not in ("/health", "/readyz", "/livez"))
    chat = document["paths"]["/v1/chat/completions"]["post"]
    expected = {200, 400, 401, 403, 404, 413, 415, 429, 500, 503, 504}
    assert {int(status) for status in chat["responses"]} == expected
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    body = document["components"]["schemas"]["ChatBody"]
    assert set(body["required"]) == {"model", "messages"}
    assert body["properties"]["temperature"]["maximum"] == 2
