"""Sessions of the onnx backend: chunks, neighbours, and what stops them."""

import threading
import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from backends import BackendError, Prompt
from backends.onnx import backend as session_module
from backends.onnx.backend import OnnxBackend, OnnxSession
from backends.onnx.features import Features
from backends.qwen3vl import Config
from tests.exports import Models, fp32, scores
from tests.torch.test_backend import LAYOUTS, prompt_of


@pytest.fixture(scope="module", name="models")
def models_fixture() -> Models:
    return fp32()


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_reading_in_chunks_equals_reading_at_once(
    models: Models, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    prompt, tokens = prompt_of(models.folder, LAYOUTS["two images"]), list(range(300, 306))
    with closing(models.backend.open(1024)) as session:
        whole = scores(session, prompt, tokens)
    monkeypatch.setattr(session_module, "CHUNK", chunk)
    with closing(models.backend.open(1024)) as session:
        assert np.abs(scores(session, prompt, tokens) - whole).max() <= 2e-5


def test_interleaved_sessions_equal_their_solo_runs(models: Models) -> None:
    prompts = [prompt_of(models.folder, LAYOUTS[layout]) for layout in ("one image", "two images")]
    tokens = list(range(300, 312))
    solo = []
    for prompt in prompts:
        with closing(models.backend.open(1024)) as session:
            solo.append(scores(session, prompt, tokens))
    first, second = models.backend.open(1024), models.backend.open(512)
    mixed = [[first.prefill(prompts[0]).logits], [second.prefill(prompts[1]).logits]]
    for token in tokens[:-1]:
        mixed[0].append(first.decode(token))
        mixed[1].append(second.decode(token))
    assert np.array_equal(np.stack(mixed[0]), solo[0])
    assert np.array_equal(np.stack(mixed[1]), solo[1])
    assert np.abs(solo[0] - solo[1]).max() > 1e-2


class Stopwatch:
    """Closes a session from another thread as soon as its run has begun."""

    def __init__(self, session: OnnxSession) -> None:
        self.session = session
        self.thread = threading.Thread(target=self._stop)
        self.stopped = 0.0

    def __enter__(self) -> "Stopwatch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()

    def _stop(self) -> None:
        while self.session._running is None:
            time.sleep(0.0005)
        self.stopped = time.perf_counter()
        self.session.close()


def test_closing_stops_a_prefill_and_leaves_the_backend_whole(models: Models) -> None:
    prompt = prompt_of(models.folder, LAYOUTS["one image"])
    long = Prompt(np.tile(np.arange(1000), 20))
    with closing(models.backend.open(1024)) as session:
        fresh = scores(session, prompt, [300, 301])
    session = models.backend.open(len(long.ids))
    with Stopwatch(session) as watch, pytest.raises(BackendError, match="closed") as raised:
        session.prefill(long)
    assert time.perf_counter() - watch.stopped < 1
    assert raised.value.code == "cancelled"
    with closing(models.backend.open(1024)) as session:
        assert np.array_equal(scores(session, prompt, [300, 301]), fresh)


class Slow:
    """A tower that works until it is told to stop."""

    def encode(self, patches: np.ndarray, grid: np.ndarray, run_options: Any = None) -> Features:
        while not run_options.terminate:
            time.sleep(0.0005)
        raise BackendError("stopped")


def test_closing_stops_an_image_too(models: Models) -> None:
    whole = models.backend
    backend = OnnxBackend(Config.read(models.out), whole.decoder, whole.embeddings, Slow())
    session = backend.open(1024)
    with Stopwatch(session), pytest.raises(BackendError, match="closed") as raised:
        session.prefill(prompt_of(models.folder, LAYOUTS["one image"]))
    assert raised.value.code == "cancelled"


def test_a_closed_session_says_so(models: Models) -> None:
    session = models.backend.open(64)
    session.prefill(Prompt(np.arange(5)))
    session.close()
    session.close()
    with pytest.raises(BackendError, match="the session was closed"):
        session.decode(1)


def test_a_session_holds_no_more_than_it_was_opened_for(models: Models) -> None:
    with closing(models.backend.open(6)) as session:
        session.prefill(Prompt(np.arange(5)))
        session.decode(1)
        with pytest.raises(BackendError, match="opened for 6 tokens"):
            session.decode(1)


def test_a_second_prefill_starts_over(models: Models) -> None:
    with closing(models.backend.open(64)) as session:
        first = scores(session, Prompt(np.arange(9)), [1, 2])
        scores(session, Prompt(np.arange(20, 50)), [3])
        assert np.array_equal(scores(session, Prompt(np.arange(9)), [1, 2]), first)


def test_images_without_their_patches_are_refused(models: Models) -> None:
    whole = prompt_of(models.folder, LAYOUTS["two images"])
    assert whole.patches is not None
    for patches in (None, whole.patches[:-4], np.concatenate([whole.patches, whole.patches[:4]])):
        with closing(models.backend.open(1024)) as session:
            with pytest.raises(BackendError, match="do not fill its images") as raised:
                session.prefill(replace(whole, patches=patches))
            assert raised.value.code == "internal_inconsistency"


def test_a_forked_process_is_told_to_load_the_model_itself(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(models.backend.open(8)) as session:
        session.prefill(Prompt(np.arange(3)))
        monkeypatch.setattr("os.getpid", lambda: 1)
        with pytest.raises(BackendError, match="load it in this process"):
            session.decode(1)


def test_a_token_outside_the_vocabulary_is_refused(models: Models) -> None:
    with closing(models.backend.open(8)) as session, pytest.raises(BackendError, match="outside 0 to 1023"):
        session.prefill(Prompt(np.array([1024])))
