"""The genai backend: the onnx backend's tokens for text, from sessions that grow, stop and stay apart."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime_genai")

import backends
from backends import BackendError, Prompt, Runtime
from backends.export import Recipe
from backends.genai import backend as session_module
from backends.genai.backend import GenaiBackend
from backends.genai.library import GenaiError, GenaiGenerator
from backends.onnx.backend import OnnxBackend
from backends.prefix_cache import TAIL
from tests.exports import exported, fp32, greedy, model, scores
from tests.torch.test_backend import LAYOUTS, prompt_of

IDS = np.random.default_rng(1).integers(0, 1000, 61)
TOKENS = list(range(300, 324))
RUNTIME = Runtime(device="cpu", threads=1, kept_bytes=0)


@pytest.fixture(scope="module", name="backend")
def backend_fixture() -> GenaiBackend:
    return GenaiBackend.load(fp32().out, RUNTIME)


def test_it_gives_the_scores_of_the_onnx_backend(backend: GenaiBackend) -> None:
    prompt = prompt_of(fp32().folder, LAYOUTS["text"])
    with closing(backend.open(1024)) as ours, closing(fp32().backend.open(1024)) as theirs:
        assert np.abs(scores(ours, prompt, TOKENS) - scores(theirs, prompt, TOKENS)).max() <= 1e-4
    with closing(backend.open(1024)) as ours, closing(fp32().backend.open(1024)) as theirs:
        other = replace(prompt, ids=np.append(prompt.ids[:-1], 5))
        assert np.abs(scores(ours, prompt, TOKENS) - scores(theirs, other, TOKENS)).max() > 1e-2


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(recipe="fast"), Recipe(precision="int8")], ids=str)
def test_rounded_exports_give_the_tokens_of_the_onnx_backend(tmp_path: Path, recipe: Recipe) -> None:
    _, out, _ = exported(tmp_path, recipe, model())
    prompt = Prompt(IDS)
    with closing(GenaiBackend.load(out, RUNTIME).open(256)) as session:
        ours = greedy(session, prompt, 48)
    with closing(OnnxBackend.load(out, RUNTIME).open(256)) as session:
        assert greedy(session, prompt, 48) == ours
    assert len(set(ours)) >= 3


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_reading_in_chunks_equals_reading_at_once(
    backend: GenaiBackend, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    with closing(backend.open(256)) as session:
        whole = scores(session, Prompt(IDS), TOKENS)
    monkeypatch.setattr(session_module, "CHUNK", chunk)
    with closing(backend.open(256)) as session:
        assert np.abs(scores(session, Prompt(IDS), TOKENS) - whole).max() <= 2e-5


def test_an_answer_longer_than_its_first_room_is_the_same(
    backend: GenaiBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    class Noted(GenaiGenerator):
        def __init__(self, model: Any, max_length: int) -> None:
            lengths.append(max_length)
            super().__init__(model, max_length)

    monkeypatch.setattr(session_module, "GenaiGenerator", Noted)
    with closing(backend.open(256)) as session:
        whole = greedy(session, Prompt(IDS), 100)
    monkeypatch.setattr(session_module, "ROOM", 5)
    monkeypatch.setattr(session_module, "ENOUGH", 3)
    with closing(backend.open(len(IDS) + 100)) as session:
        assert greedy(session, Prompt(IDS), 100) == whole
    assert lengths == [317, 66, 132, 161]


def test_interleaved_sessions_equal_their_solo_runs_from_many_threads(backend: GenaiBackend) -> None:
    prompts = [Prompt(np.random.default_rng(seed).integers(0, 1000, 40)) for seed in range(8)]

    def run(prompt: Prompt) -> np.ndarray:
        with closing(backend.open(128)) as session:
            return scores(session, prompt, TOKENS)

    solo = list(map(run, prompts))
    start = threading.Barrier(8)

    def together(prompt: Prompt) -> np.ndarray:
        start.wait(10)
        return run(prompt)

    with ThreadPoolExecutor(8) as pool:
        for mixed, alone in zip(pool.map(together, prompts), solo, strict=True):
            assert np.array_equal(mixed, alone)
    assert np.abs(solo[0] - solo[1]).max() > 1e-2


def test_other_threads_go_on_while_it_computes(
    backend: GenaiBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own Python classes would hold them all."""
    computing = threading.Event()
    ticks: list[bool] = []
    append = GenaiGenerator.append

    def tick() -> None:
        while not computing.wait(10):
            pass
        while computing.is_set():
            ticks.append(True)
            time.sleep(0.0002)

    def told(self: GenaiGenerator, ids: np.ndarray) -> None:
        computing.set()
        append(self, ids)
        computing.clear()

    monkeypatch.setattr(GenaiGenerator, "append", told)
    thread = threading.Thread(target=tick)
    thread.start()
    with closing(backend.open(1024)) as session:
        session.prefill(Prompt(np.tile(IDS, 15)))
    thread.join()
    assert len(ticks) > 3


class Endless:
    """A generator whose run lasts until it is told to end, as a long prompt's would."""

    def __init__(self, model: Any, max_length: int) -> None:
        self.max_length = max_length
        self.ended = threading.Event()

    def append(self, ids: np.ndarray) -> None:
        assert self.ended.wait(30)
        raise GenaiError("Exiting due to terminate flag being set to true.")

    def terminate(self) -> None:
        self.ended.set()

    def rewind(self, tokens: int) -> None:
        assert tokens == 0


def closing_soon(session: Any) -> threading.Thread:
    def stop() -> None:
        while not session.computing:
            time.sleep(0.0005)
        session.close()

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


def test_closing_stops_a_run(backend: GenaiBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "GenaiGenerator", Endless)
    session = backend.open(1024)
    thread = closing_soon(session)
    with pytest.raises(BackendError, match="closed") as raised:
        session.prefill(Prompt(IDS))
    thread.join()
    assert raised.value.code == "cancelled"


def test_closing_stops_a_real_run_and_leaves_the_backend_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = GenaiBackend.load(fp32().out, replace(RUNTIME, kept_bytes=1 << 30))
    with closing(backend.open(256)) as session:
        fresh = scores(session, Prompt(IDS), TOKENS)
    append, stopped = GenaiGenerator.append, backend.open(256)

    def stop_first(self: GenaiGenerator, ids: np.ndarray) -> None:
        if len(stopped.ids) == len(IDS):
            stopped.close()  # what is told to end before it begins ends as well
        append(self, ids)

    monkeypatch.setattr(GenaiGenerator, "append", stop_first)
    stopped.prefill(Prompt(IDS))
    with pytest.raises(BackendError, match="the session was closed") as raised:
        stopped.decode(TOKENS[0])
    assert raised.value.code == "cancelled"
    with closing(backend.open(256)) as session:
        prefilled = session.prefill(Prompt(IDS))
        decoded = [session.decode(token) for token in TOKENS[:-1]]
        assert np.array_equal(np.stack([prefilled.logits, *decoded]), fresh)
        assert prefilled.cached_tokens == len(IDS) - TAIL, "what the stopped one had read is gone on from"


def test_a_closed_session_says_so(backend: GenaiBackend) -> None:
    session = backend.open(64)
    session.prefill(Prompt(np.arange(5)))
    session.close()
    session.close()
    with pytest.raises(BackendError, match="the session was closed"):
        session.decode(1)


def test_a_session_holds_no_more_than_it_was_opened_for(backend: GenaiBackend) -> None:
    with closing(backend.open(6)) as session:
        session.prefill(Prompt(np.arange(5)))
        session.decode(1)
        with pytest.raises(BackendError, match="opened for 6 tokens and is to hold 7"):
            session.decode(1)


def test_what_it_cannot_read_is_refused(backend: GenaiBackend) -> None:
    with closing(backend.open(1024)) as session:
        for prompt in (prompt_of(fp32().folder, LAYOUTS["one image"]), Prompt(np.empty(0, np.int64))):
            with pytest.raises(BackendError, match="reads text"):
                session.prefill(prompt)
        with pytest.raises(BackendError, match="outside 0 to 1023"):
            session.prefill(Prompt(np.array([1024])))


def test_a_forked_process_is_told_to_load_the_model_itself(
    backend: GenaiBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(backend.open(8)) as session:
        session.prefill(Prompt(np.arange(3)))
        monkeypatch.setattr("os.getpid", lambda: 1)
        with pytest.raises(BackendError, match="load it in this process"):
            session.decode(1)


def test_named_threads_are_taken_and_others_fit_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr("backends.genai.backend.GenaiModel", lambda _folder, options: asked.append(options))
    monkeypatch.setattr("backends.genai.backend.usable_cores", lambda: 5)
    for threads in (3, None):
        GenaiBackend.load(fp32().out, Runtime(device="cpu", threads=threads))
    assert [options["intra_op_num_threads"] for options in asked] == [3, 5]


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"genai_config\.json is missing"):
        GenaiBackend.load(fp32().folder, RUNTIME)
    for file in fp32().out.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "text.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match=r"text\.onnx cannot be loaded") as raised:
        GenaiBackend.load(tmp_path, RUNTIME)
    assert raised.value.code == "model_invalid"
    with pytest.raises(BackendError, match="does not compute on the device 'cuda'"):
        backends.load("genai", fp32().out, Runtime(device="cuda"))
