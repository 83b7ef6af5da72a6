"""A large image asked about twice, in two requests: how soon the second answer begins."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from benchmarks.load.bodies import CHAT, imaged
from benchmarks.served import Server, served

SIDE = 1024  # pixels
_TOKENS = 8
_ANSWER_SECONDS = 600.0


def measure_reuse(model: str) -> None:
    """Two images, each asked about twice; the second one is the control: another image is read anew."""
    questions = ("What is in this image?", "Which colour is most of it?")
    with served("-m", model) as server:
        for number in (1, 2):
            times = []
            for question in questions:
                answer = first_token(server, image(number), question)
                print(f"image {number}, {question!r}: {answer}", flush=True)
                times.append(answer.seconds)
            print(f"image {number}: the second TTFT is {times[1] / times[0]:.3f} of the first", flush=True)


@dataclass(frozen=True)
class Asked:
    """One answer's beginning."""

    seconds: float  # to the first token
    computed: float  # seconds of all cores by then: what other programs take does not count
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int

    def __str__(self) -> str:
        return (
            f"TTFT {self.seconds:.3f} s, {self.computed:.2f} s of the cores; {self.prompt_tokens} tokens, "
            f"{self.image_tokens} of them the image's, {self.cached_tokens} of them kept"
        )


def image(number: int) -> bytes:
    """A PNG of SIDE x SIDE pixels: waves of colour, others for every number."""
    across, down = np.meshgrid(np.linspace(0, 6, SIDE), np.linspace(0, 6, SIDE))
    waves = [np.sin(across * number + k) * np.cos(down + number * k) for k in range(3)]
    pixels = np.stack([np.uint8(127 + 127 * wave) for wave in waves], axis=2)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def first_token(server: Server, data: bytes, question: str) -> Asked:
    """Ask about an image by a stream, as any client does."""
    request = imaged(
        data, question, model="auto", max_tokens=_TOKENS, stream=True, stream_options={"include_usage": True}
    )
    seconds = computed = 0.0
    usage: dict[str, Any] = {}
    since, before = time.perf_counter(), server.cpu_seconds()
    address = f"{server.address}{CHAT}"
    with httpx2.stream("POST", address, json=request, timeout=_ANSWER_SECONDS) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            found = json.loads(line[6:]) if line.startswith("data: {") else {}
            if not seconds and any(choice["delta"].get("content") for choice in found.get("choices", ())):
                seconds, computed = time.perf_counter() - since, server.cpu_seconds() - before
            usage = found.get("usage") or usage
    details = usage["prompt_tokens_details"]
    return Asked(seconds, computed, usage["prompt_tokens"], details["image_tokens"], details["cached_tokens"])
