"""Sessions of the onnx backend that decode together."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from backends import BackendError, Prompt
from backends.onnx import batch
from backends.onnx.backend import OnnxBackend
from backends.onnx.decoder import Decoder
from tests import tiny
from tests.exports import fp32, load, scores
from tests.torch.test_backend import LAYOUTS, prompt_of

STEPS = 24


@pytest.fixture
def backend() -> OnnxBackend:
    return load(fp32().out, tiny.model())


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every run of several."""
    rows: list[int] = []
    step = Decoder.step

    def noted(self: Decoder, binding: Any, embeddings: np.ndarray, *rest: Any) -> np.ndarray:
        rows.append(len(embeddings))
        return step(self, binding, embeddings, *rest)

    monkeypatch.setattr(Decoder, "step", noted)
    monkeypatch.setattr(batch, "MEET_SECONDS", 5.0)  # a busy machine does not tear apart what shall meet
    return rows


def prompts(count: int) -> list[Prompt]:
    imaged = prompt_of(fp32().folder, LAYOUTS["two images"])
    texts = [
        Prompt(np.random.default_rng(seed).integers(0, 1000, 20 + 7 * seed)) for seed in range(count - 1)
    ]
    return [imaged, *texts]


def tokens(number: int, count: int = STEPS) -> list[int]:
    return np.random.default_rng(100 + number).integers(0, 1000, count).tolist()


def solo(given: list[Prompt], lengths: list[int]) -> list[np.ndarray]:
    found = []
    for number, (prompt, length) in enumerate(zip(given, lengths, strict=True)):
        with closing(load(fp32().out, tiny.model()).open(1024)) as session:
            found.append(scores(session, prompt, tokens(number, length)))
    return found


def together(
    backend: OnnxBackend, given: list[Prompt], lengths: list[int], *, in_step: bool = False
) -> list[np.ndarray]:
    """Prefill each alone; then decode all at once, each from a thread of its own.

    ``in_step``: none begins a token before all are done with the one before, which a busy machine would let.
    """
    sessions = [backend.open(1024) for _ in given]
    first = [session.prefill(prompt).logits for session, prompt in zip(sessions, given, strict=True)]
    start = threading.Barrier(len(given))

    def run(number: int) -> np.ndarray:
        start.wait(30)
        decoded = []
        with closing(sessions[number]) as session:
            for token in tokens(number, lengths[number])[:-1]:
                decoded.append(session.decode(token))
                if in_step and len(decoded) < lengths[number] - 1:
                    start.wait(30)
        for _ in range(max(lengths) - lengths[number] if in_step else 0):
            start.wait(30)
        return np.stack([first[number], *decoded])

    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(run, range(len(given))))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_sessions_that_decode_together_get_their_solo_scores(
    backend: OnnxBackend, steps: list[int], count: int
) -> None:
    given, lengths = prompts(count), [STEPS] * count
    alone, mixed = solo(given, lengths), together(backend, given, lengths)
    for one, other in zip(alone, mixed, strict=True):
        assert np.abs(one - other).max() <= 2e-5
    assert np.abs(alone[0] - alone[1]).max() > 1e-2
    assert max(steps) == count, "they met"
    assert np.mean(steps) > count / 2


def test_sessions_that_end_leave_the_others_as_they_are(backend: OnnxBackend, steps: list[int]) -> None:
    lengths = [STEPS, STEPS - 12, STEPS - 6, STEPS - 9, STEPS]
    given = prompts(len(lengths))
    for one, other in zip(solo(given, lengths), together(backend, given, lengths, in_step=True), strict=True):
        assert np.abs(one - other).max() <= 2e-5
    assert {2, 5} <= set(steps)
    assert backend.batcher.arena is not None
    assert backend.batcher.arena.members == []


def test_more_sessions_than_rows_take_turns(
    backend: OnnxBackend, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "ROWS", 3)
    given, lengths = prompts(7), [10] * 7
    for one, other in zip(solo(given, lengths), together(backend, given, lengths), strict=True):
        assert np.abs(one - other).max() <= 2e-5
    assert max(steps) == 3


def test_one_that_joins_later_and_one_that_is_read_slowly_change_nothing(
    backend: OnnxBackend, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MEET_SECONDS", 0.5)
    monkeypatch.setattr(batch, "MISSED", 2)
    given, lengths = prompts(3), [STEPS, STEPS, STEPS]
    alone = solo(given, lengths)
    first, second, late = (backend.open(1024) for _ in given)
    mixed = [[first.prefill(given[0]).logits], [second.prefill(given[1]).logits], []]
    both = threading.Barrier(2)

    def run(number: int, session: Any, picked: list[int]) -> None:
        both.wait(30)
        mixed[number] += [session.decode(token) for token in picked]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, (0, 1), (first, second), (tokens(0)[:4], tokens(1)[:4])))
        mixed[0] += [first.decode(token) for token in tokens(0)[4:12]]  # the second one misses eight steps
        mixed[2].append(late.prefill(given[2]).logits)
        list(pool.map(run, (1, 2), (second, late), (tokens(1)[4:-1], tokens(2)[:-1])))
    mixed[0] += [first.decode(token) for token in tokens(0)[12:-1]]
    for one, other in zip(alone, mixed, strict=True):
        assert np.abs(one - np.stack(other)).max() <= 2e-5
    assert 2 in steps


def test_one_that_is_alone_is_not_moved(backend: OnnxBackend, steps: list[int]) -> None:
    prompt = prompts(1)[0]
    with closing(backend.open(1024)) as session:
        scores(session, prompt, tokens(0))
    assert steps == []
    assert backend.batcher.arena is None


def test_a_failed_step_is_told_to_all_who_were_in_it(
    backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MEET_SECONDS", 5.0)

    def fail(*_: object) -> np.ndarray:
        raise BackendError("the decoder failed")

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "step", fail)
        patch.setattr(Decoder, "run", with_prefill_only(Decoder.run))
        with pytest.raises(BackendError, match="the decoder failed"):
            together(backend, prompts(3), [4, 4, 4])
    assert len(together(backend, prompts(3), [4, 4, 4])) == 3


def with_prefill_only(run: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def only(self: Decoder, cache: Any, embeddings: np.ndarray, *rest: Any) -> np.ndarray:
        if len(embeddings) == 1:
            raise BackendError("the decoder failed")
        return run(self, cache, embeddings, *rest)

    return only


def test_closing_one_does_not_stop_the_others(backend: OnnxBackend, steps: list[int]) -> None:
    given, lengths = prompts(3), [STEPS] * 3
    alone = solo(given, lengths)
    sessions = [backend.open(1024) for _ in given]
    mixed = [[session.prefill(prompt).logits] for session, prompt in zip(sessions, given, strict=True)]
    start = threading.Barrier(3)

    def run(number: int) -> None:
        start.wait(30)
        for step, token in enumerate(tokens(number)[:-1]):
            if (number, step) == (2, 6):
                sessions[2].close()
            mixed[number].append(sessions[number].decode(token))

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(run, number) for number in range(3)]
    with pytest.raises(BackendError, match="closed"):
        futures[2].result()
    for number in (0, 1):
        futures[number].result()
        assert np.abs(alone[number] - np.stack(mixed[number])).max() <= 2e-5


def test_what_was_decoded_together_is_gone_on_from(steps: list[int]) -> None:
    backend = load(fp32().out, tiny.model(), kept_bytes=1 << 30)
    given, lengths = prompts(3), [STEPS] * 3
    together(backend, given, lengths)
    longer = Prompt(np.concatenate([given[1].ids, tokens(1)[:-1], np.arange(40)]))
    with closing(load(fp32().out, tiny.model()).open(1024)) as session:
        cold = session.prefill(longer).logits
    with closing(backend.open(1024)) as session:
        warm = session.prefill(longer)
        assert np.abs(warm.logits - cold).max() <= 1e-4
        assert warm.cached_tokens == len(given[1].ids) + STEPS - 1
