"""``hybrid route``: a dry run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends import Runtime
from router.cli import run
from router.estimates import Speed, record_speeds
from router.models import find

SPEED = Speed(2.0, prefill=((10, 10.0),), decode=((100, 20.0),), vision=((48, 48.0),))


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("backends.load", lambda *_: pytest.fail("a backend was loaded"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(file)
    return file


def said(capsys, *arguments: str) -> str:
    assert run(["route", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def rows(text: str) -> dict[str, list[str]]:
    """The table's lines by backend, as words."""
    words = [line.split() for line in text.splitlines() if line.strip()]
    return {row[0]: row[1:] for row in words if row[0] in ("torch", "onnx", "genai")}


def test_text_and_images_go_where_they_fit_and_each_backend_is_accounted_for(capsys, image) -> None:
    text = said(capsys, "What can you do?")
    assert text.startswith(
        "genai: text only (then onnx, torch)\n13 prompt tokens; at most 64 in the answer\n"
    )
    assert rows(text)["genai"][:4] == ["this", "one", "to", "be"]
    assert rows(text)["torch"][:2] == ["could", "checkpoint"]
    assert "scripted" not in text
    text = said(capsys, "-i", str(image), "What can you do?")
    assert text.startswith("onnx: the conversation has an image (then torch)\n")
    assert "12 of them for images" in text
    assert "genai cannot: it reads text only" in text


def test_json_has_all_that_was_weighed(capsys, image) -> None:
    found = json.loads(said(capsys, "--json", "-n", "32", "-i", str(image), "What?"))
    assert found["decision"] == {
        "backend": "onnx",
        "reason": "the conversation has an image",
        "fallbacks": ["torch"],
    }
    assert (found["image_tokens"], found["max_tokens"]) == (12, 32)
    by_name = {candidate["backend"]: candidate for candidate in found["candidates"]}
    assert set(by_name) == {"torch", "onnx", "genai"}
    assert by_name["genai"]["refusal"] == "it reads text only"
    assert by_name["onnx"]["capability"]["exported"] is False
    assert by_name["onnx"]["capability"]["memory"] > 10_000_000
    assert all(candidate["estimate"] is None for candidate in found["candidates"])


def test_seconds_come_from_what_was_measured_here(capsys, image) -> None:
    record_speeds(find(), Runtime(), {"onnx": SPEED})
    found = json.loads(said(capsys, "--json", "-n", "40", "-i", str(image), "What?"))
    (estimate,) = (each["estimate"] for each in found["candidates"] if each["backend"] == "onnx")
    first = found["prompt_tokens"] / 10 + 1.0  # the image's 48 patches take a second
    assert estimate["load_seconds"] == 2.0
    assert estimate["first_token_seconds"] == pytest.approx(first)
    assert estimate["seconds"] == pytest.approx(first + 2.0)
    shown = rows(said(capsys, "-n", "40", "-i", str(image), "What?"))
    assert shown["onnx"][-4:] == [f"{first + 2:.1f}", "s", f"{first + 4:.1f}", "s"]
    assert shown["torch"][-2:] == ["not", "measured"]


def test_the_fastest_policy_reads_the_same_figures(capsys) -> None:
    assert said(capsys, "--policy", "fastest", "hello").startswith("genai: nothing was measured here")
    record_speeds(find(), Runtime(), {"onnx": SPEED, "torch": Speed(0.0, ((10, 1e4),), ((100, 1e4),))})
    assert said(capsys, "--policy", "fastest", "hello").startswith("torch: the fastest here, about 0.0 s;")


def test_without_an_export_the_answer_would_come_from_torch(capsys) -> None:
    text = said(capsys, "--no-export", "hello")
    assert text.startswith("torch: text only; genai: there is no export of scenes: hybrid export scenes;")
    assert "onnx cannot: there is no export of scenes: hybrid export scenes" in text


def test_what_cannot_be_is_refused_as_it_would_be(capsys, image) -> None:
    refused = "hybrid: backend 'genai' reads text only; drop the image or choose another backend\n"
    assert run(["route", "--backend", "genai", "-i", str(image), "hello"]) == 2
    assert capsys.readouterr() == ("", refused)
    assert run(["generate", "-m", "scenes", "--backend", "genai", "-i", str(image), "hello"]) == 2
    assert capsys.readouterr() == ("", refused)
    assert run(["route", "--policy", "quickest", "hello"]) == 2
    assert (
        "no policy is named 'quickest'; choose one of auto, fastest, prefer:a,b,c" in capsys.readouterr().err
    )
    assert run(["route", "-n", "5000", "hello"]) == 3
