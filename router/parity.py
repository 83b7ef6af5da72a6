"""How near one backend comes to another on the same model: features, scores and greedy answers compared.

The reference answers built-in questions greedily. The other backend reads the same prompts and the same
answers, token for token, so that every step is compared in the same context; up to its first different choice
it would have answered the same by itself. The two are loaded one after the other: large models need not fit
twice.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

import backends
from backends.base import Backend, BackendError, Prompt, Runtime
from backends.machine import Format, reference_format
from router.prompt import PromptBuilder
from router.types import Message, Picture

Floats: TypeAlias = NDArray[np.float32]

STEPS = 24  # tokens of each answer that are compared


@runtime_checkable
class Seeing(Protocol):
    """A backend that shows what its vision tower makes of a prompt's images."""

    def image_features(self, prompt: Prompt) -> list[Floats]:
        """The features put into the embeddings, then each DeepStack feature, all [image_tokens, hidden]."""
        ...


@dataclass(frozen=True, eq=False)
class Trace:
    """What one backend made of one prompt."""

    features: list[Floats]
    scores: Floats  # [steps, vocab]
    tokens: tuple[int, ...]  # the reference's greedy answer, which both read


@dataclass(frozen=True)
class Distance:
    """How far a stage is from the reference, over everything that was compared."""

    stage: str
    cosine: float  # of all values as one vector
    worst_row: float  # the lowest cosine of a single image place or prompt
    relative_error: float  # Frobenius norm of the difference over that of the reference


@dataclass(frozen=True)
class ParityReport:
    """What ``compare`` found."""

    distances: tuple[Distance, ...]
    top1: float  # share of steps whose likeliest token is the reference's
    divergence: float  # mean KL divergence from the reference's next tokens, in nats, where it is largest
    agreeing: tuple[int, ...]  # tokens of each answer before the first different one
    steps: int  # of which this many were compared
    # of the reference's weights; None: not a model that was loaded here
    reference_dtype: Format | None = None


@dataclass(frozen=True)
class Bars:
    """What a report must reach."""

    cosine: float
    top1: float
    divergence: float

    def failures(self, report: ParityReport) -> list[str]:
        """What ``report`` does not reach, in words; empty when it holds."""
        failures = [
            f"{distance.stage}: cosine {distance.cosine:.6f}, at least {self.cosine:g} wanted"
            for distance in report.distances
            if not distance.cosine >= self.cosine  # a NaN fails too
        ]
        if not report.top1 >= self.top1:
            failures.append(f"top-1 agreement {report.top1:.1%}, at least {self.top1:.1%} wanted")
        if not report.divergence <= self.divergence:
            failures.append(f"KL divergence {report.divergence:.4g}, at most {self.divergence:g} wanted")
        return failures


# by the precision of an export: float32 to its own rounding; int8 and int4 to what rounding weights explains,
# so that a wrong position, a lost DeepStack feature or a damaged matrix fails
BARS = {
    "fp32": Bars(cosine=0.9999, top1=0.99, divergence=1e-4),
    "int8": Bars(cosine=0.99, top1=0.95, divergence=0.02),
    "int4": Bars(cosine=0.98, top1=0.9, divergence=0.1),
}


def trace(
    backend: Backend, prompts: Sequence[Prompt], answers: Sequence[tuple[int, ...]] | None = None
) -> Iterator[Trace]:
    """Read each prompt and an answer to it: the one given, or else the backend's own greedy one."""
    for index, prompt in enumerate(prompts):
        features = [] if prompt.patches is None else _seeing(backend).image_features(prompt)
        given = None if answers is None else answers[index]
        scores, tokens = _read(backend, prompt, given)
        yield Trace(features, scores, tokens)


def _seeing(backend: Backend) -> Seeing:
    if not isinstance(backend, Seeing):
        raise BackendError(f"backend '{backend.name}' does not show what it makes of an image; take torch")
    return backend


def compare(reference: Sequence[Trace], other: Sequence[Trace]) -> ParityReport:
    """Measure ``other``, made with the reference's answers, against ``reference``."""
    pairs = list(zip(reference, other, strict=True))
    imaged = [(a.features, b.features) for a, b in pairs if a.features]
    names = (
        ["image features", *(f"DeepStack feature {i}" for i in range(len(imaged[0][0]) - 1))]
        if imaged
        else []
    )
    distances = [
        _distance(name, np.concatenate([a[i] for a, _ in imaged]), np.concatenate([b[i] for _, b in imaged]))
        for i, name in enumerate(names)
    ]
    first = _distance(
        "prefill scores", np.stack([a.scores[0] for a, _ in pairs]), np.stack([b.scores[0] for _, b in pairs])
    )
    same = [a.scores.argmax(1) == b.scores.argmax(1) for a, b in pairs]
    return ParityReport(
        distances=(*distances, first),
        top1=float(np.concatenate(same).mean()),
        # of the worst prompt: what is wrong with images must not drown in text that is right
        divergence=float(np.max([_divergence(a.scores, b.scores).mean() for a, b in pairs])),
        agreeing=tuple(int(np.append(row, False).argmin()) for row in same),
        steps=sum(map(len, same)),
    )


def verify(
    checkpoint: Path, export: Path, against: str, runtime: Runtime, on_progress: Callable[[str], None]
) -> ParityReport:
    """Compare an export on the onnx backend with its checkpoint on ``against``.

    ``on_progress`` is called for each prompt. The reference computes in float32 unless ``runtime`` names
    another dtype or the memory does not hold it.
    """
    prompts = questions(PromptBuilder.read(export))
    dtype = reference_format(checkpoint, runtime.dtype)
    # each prompt by itself, as the other backend reads it
    runtime = replace(runtime, dtype=dtype, kept_bytes=0)
    reference = list(
        _counted(trace(backends.load(against, checkpoint, runtime), prompts), against, prompts, on_progress)
    )
    gc.collect()  # the reference's weights go before the other's come
    answers = [each.tokens for each in reference]
    onnx = backends.load("onnx", export, runtime)
    report = compare(reference, list(_counted(trace(onnx, prompts, answers), "onnx", prompts, on_progress)))
    return replace(report, reference_dtype=dtype)


def _counted(
    traces: Iterator[Trace], name: str, prompts: Sequence[Prompt], on_progress: Callable[[str], None]
) -> Iterator[Trace]:
    for number, each in enumerate(traces, 1):
        on_progress(f"{name}: prompt {number} of {len(prompts)}")
        yield each


def questions(builder: PromptBuilder) -> list[Prompt]:
    """The built-in prompts: text of several kinds, and images of several sizes, alone and together."""
    quadrants, waves, noise = _quadrants(256, 256), _waves(320, 192), _noise(224, 352)
    conversations = [
        (Message.of("user", "Which colours do you see?"),),
        (Message.of("user", "Write a short story about a lighthouse and a storm."),),
        (Message.of("system", "Answer in one word."), Message.of("user", "What is the capital of France?")),
        (
            Message.of("user", "def fibonacci(n):"),
            Message.of("assistant", "..."),
            Message.of("user", "Go on."),
        ),
        (Message.of("user", quadrants, "Which colours do you see?"),),
        (Message.of("user", "What is in this image?", waves),),
        (Message.of("user", noise, quadrants, "Compare the two images."),),
        (
            Message.of("user", waves, "Which colours do you see?"),
            Message.of("assistant", "I see red."),
            Message.of("user", "And on the right?"),
        ),
    ]
    return [builder.plan(messages).prompt() for messages in conversations]


def _read(backend: Backend, prompt: Prompt, answer: tuple[int, ...] | None) -> tuple[Floats, tuple[int, ...]]:
    scores, tokens = [], []
    with closing(backend.open(len(prompt.ids) + STEPS)) as session:
        scores.append(session.prefill(prompt).logits)
        for step in range(STEPS - 1):
            tokens.append(int(scores[-1].argmax()) if answer is None else answer[step])
            scores.append(session.decode(tokens[-1]))
    return np.stack(scores), tuple(tokens)


def _distance(stage: str, reference: Floats, other: Floats) -> Distance:
    """Rows are vectors: [rows, size]."""
    a, b = reference.astype(np.float64), other.astype(np.float64)
    products, lengths = (a * b).sum(1), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    whole = np.linalg.norm(a) * np.linalg.norm(b)
    return Distance(
        stage,
        cosine=float(products.sum() / whole),
        worst_row=float((products / lengths).min()),
        relative_error=float(np.linalg.norm(a - b) / np.linalg.norm(a)),
    )


def _divergence(reference: Floats, other: Floats) -> NDArray[np.float64]:
    """KL(reference || other) of each row's softmax, in nats: [steps]."""
    p, q = _log_softmax(reference), _log_softmax(other)
    divergence: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(1)
    return divergence


def _log_softmax(scores: Floats) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logs


def _quadrants(width: int, height: int) -> Picture:
    colours = np.array([[[255, 0, 0], [0, 128, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
    return Picture(colours.repeat(height // 2, 0).repeat(width // 2, 1))


def _waves(width: int, height: int) -> Picture:
    y, x = np.mgrid[:height, :width] / 24
    channels = np.stack([np.sin(x), np.sin(y), np.sin(x + y)], -1)
    return Picture(((channels + 1) * 127.5).astype(np.uint8))


def _noise(width: int, height: int) -> Picture:
    return Picture(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
