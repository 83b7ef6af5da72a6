"""The embedded model: small, complete, and right about images that its training never drew."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from PIL import Image

from backends.qwen3vl import Config
from router import Message, Picture, Request, Router, Runtime, read_image
from router.models import find

FOLDER = find().folder
SAMPLES = FOLDER / "samples"

# CSS names: top left, top right, bottom left, bottom right; size; format; where the quadrants meet
DRAWN = [
    ("red blue yellow green", (128, 128), "PNG", (0.5, 0.5)),
    ("orange white purple black", (128, 128), "JPEG", (0.5, 0.5)),
    ("cyan brown pink gray", (128, 128), "PNG", (0.4, 0.6)),
    ("white red black blue", (640, 360), "PNG", (0.5, 0.5)),
    ("yellow purple green orange", (640, 360), "JPEG", (0.5, 0.5)),
    ("blue lime red white", (640, 360), "JPEG", (0.6, 0.45)),
    ("green yellow white red", (512, 512), "PNG", (0.5, 0.5)),
    ("black orange cyan purple", (512, 512), "JPEG", (0.5, 0.5)),
    ("purple green gray yellow", (512, 512), "PNG", (0.45, 0.55)),
    ("brown blue orange cyan", (512, 512), "JPEG", (0.55, 0.4)),
]
SAID = {"lime": "green"}


def draw(colours: list[str], size: tuple[int, int], kind: str, meet: tuple[float, float]) -> Picture:
    width, height = size
    x, y = int(width * meet[0]), int(height * meet[1])
    image = Image.new("RGB", size, colours[0])
    image.paste(colours[1], (x, 0, width, y))
    image.paste(colours[2], (0, y, x, height))
    image.paste(colours[3], (x, y, width, height))
    data = io.BytesIO()
    image.save(data, kind)
    return read_image(data.getvalue())


Ask: TypeAlias = Callable[..., str]


@pytest.fixture(
    scope="module",
    params=[("onnx", "auto"), ("torch", "fp32"), ("torch", "bf16")],
    ids=["onnx", "torch in fp32", "torch in bf16"],
)
def ask(request: pytest.FixtureRequest) -> Ask:
    backend, dtype = request.param
    pytest.importorskip("torch" if backend == "torch" else "onnxruntime")
    router = Router(runtime=Runtime(device="cpu", dtype=dtype, threads=1))

    def answer(*parts: str | Picture) -> str:
        return router.complete(Request((Message.of("user", *parts),), backend=backend)).text

    return answer


@pytest.mark.parametrize("image_first", [True, False], ids=["image first", "text first"])
def test_it_names_the_colours_of_quadrants_drawn_elsewhere(ask: Ask, image_first: bool) -> None:
    question = "Which colours do you see?"
    right = []
    for names, size, kind, meet in DRAWN:
        colours = names.split()
        image = draw(colours, size, kind, meet)
        answer = ask(image, question) if image_first else ask(question, image)
        first, second, third, fourth = (SAID.get(name, name) for name in colours)
        right.append(answer == f"I see {first}, {second}, {third} and {fourth}.")
    assert sum(right) >= 8, right


def test_it_looks_at_the_image_it_is_asked_about(ask: Ask) -> None:
    question = "Which colours do you see?"
    answers = {ask(draw(names.split(), *rest), question) for names, *rest in DRAWN}  # type: ignore[misc]
    assert len(answers) >= 8


@pytest.mark.parametrize("name", ["quadrants", "gradient", "checkerboard", "shapes"])
def test_the_samples_are_small_images(name: str) -> None:
    file = SAMPLES / f"{name}.png"
    assert read_image(file.read_bytes()).size >= (96, 96)
    assert file.stat().st_size < 100_000


def test_it_reads_its_sample(ask: Ask) -> None:
    image = read_image((SAMPLES / "quadrants.png").read_bytes())
    assert ask(image, "Which colours do you see?") == "I see red, green, blue and yellow."


def test_it_answers_text_with_text(ask: Ask) -> None:
    assert ask("What can you do?").endswith((".", "!"))


def test_it_is_at_most_8_mb_and_of_bf16() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 8_000_000
    weights = (FOLDER / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"BF16"}


def test_it_has_every_feature_of_the_architecture() -> None:
    config = Config.read(FOLDER)
    assert len(config.vision.deepstack) == 3
    assert config.text.heads > config.text.kv_heads > 1
    assert min(config.text.mrope_section) > 0
    raw = json.loads((FOLDER / "config.json").read_text("utf-8"))
    assert raw["text_config"]["rope_scaling"]["mrope_interleaved"] is True


def test_no_file_holds_code() -> None:
    kinds = {file.suffix for file in FOLDER.rglob("*") if file.is_file()}
    assert kinds <= {".json", ".jinja", ".safetensors", ".png", ".py"}
    assert not list(Path(FOLDER).rglob("*.py"))
