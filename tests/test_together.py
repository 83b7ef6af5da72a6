"""All three backends behind one router: the same tokens, apart from each other, and nothing left behind."""

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime_genai")

from backends import BackendError, Runtime
from backends.export import Recipe
from router import Message, Picture, Request, Router, Sampling
from tests import tiny

ROOT = Path(__file__).parent.parent
SAMPLED = Sampling(
    temperature=0.8,
    top_p=0.9,
    repetition_penalty=1.1,
    presence_penalty=0.2,
    frequency_penalty=0.3,
    seed=11,
    max_tokens=64,
    ignore_eos=True,
)


def image(seed: int) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8))


TEXT = (Message.of("user", "Write a short story about a lighthouse and a storm."),)
IMAGED = (Message.of("user", image(1), "Which colours do you see?"),)
TWO = (Message.of("user", "Compare ", image(2), image(3), " in one sentence."),)
LATER = (*IMAGED, Message.of("assistant", "I see red."), Message.of("user", "And where?"))


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Router:
    folder = tiny.write(tmp_path_factory.mktemp("model") / "tiny")
    runtime = Runtime(device="cpu", dtype="fp32", threads=1)
    return Router(str(folder), runtime, Recipe(precision="fp32"))


def sampled(router: Router, messages: tuple[Message, ...], backend: str, seed: int = 11) -> tuple[int, ...]:
    done = router.complete(Request(messages, replace(SAMPLED, seed=seed), backend))
    assert done.stats.backend == backend
    assert len(done.tokens) == 64
    return done.tokens


def test_one_seed_gives_the_same_tokens_on_all_three(router: Router) -> None:
    tokens = sampled(router, TEXT, "torch")
    assert sampled(router, TEXT, "onnx") == tokens
    assert sampled(router, TEXT, "genai") == tokens
    assert len(set(tokens)) >= 30
    assert sampled(router, TEXT, "genai", seed=12) != tokens


@pytest.mark.parametrize("messages", [IMAGED, TWO, LATER], ids=["one image", "two", "a turn later"])
def test_one_seed_gives_the_same_tokens_about_images(router: Router, messages) -> None:
    tokens = sampled(router, messages, "torch")
    assert sampled(router, messages, "onnx") == tokens
    assert len(set(tokens)) >= 30
    assert sampled(router, messages, "onnx", seed=12) != tokens


def test_each_request_goes_where_it_fits_and_says_why(router: Router) -> None:
    greedy = Sampling(temperature=0, max_tokens=4, ignore_eos=True)
    for messages, backend, reason in (
        (TEXT, "genai", "text only"),
        (IMAGED, "onnx", "the conversation has an image"),
        (LATER, "onnx", "the conversation has an image"),
    ):
        done = router.complete(Request(messages, greedy))
        assert (done.stats.backend, done.decision.reason) == (backend, reason)


def test_without_genai_text_goes_to_onnx_and_without_an_export_to_torch(
    router: Router, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("backends.find_spec", lambda name: None if name == "onnxruntime_genai" else object())
    poor = Router(router.model, router.runtime, router.recipe)
    decision = poor.decide(Request(TEXT))
    assert (decision.backend, decision.fallbacks) == ("onnx", ("torch",))
    assert "genai: onnxruntime_genai not installed: pip install" in decision.reason
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path))
    poor = Router(router.model, router.runtime, router.recipe, make_exports=False)
    decision = poor.decide(Request(TEXT))
    assert (decision.backend, decision.fallbacks) == ("torch", ())
    assert "onnx: there is no export of tiny: hybrid export" in decision.reason
    assert poor.complete(Request(TEXT, Sampling(max_tokens=2))).stats.backend == "torch"
    with pytest.raises(BackendError, match="backend 'onnx' cannot be used: there is no export of tiny"):
        poor.decide(Request(TEXT, backend="onnx"))


def test_an_export_that_cannot_be_made_leaves_the_answer_to_torch(
    router: Router, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "exports").write_text("in the way")
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path))
    poor = Router(router.model, router.runtime, router.recipe)
    done = poor.complete(Request(IMAGED, Sampling(max_tokens=2)))
    assert done.stats.backend == "torch"
    assert (
        "the conversation has an image; onnx did not load (nothing can be written in" in done.decision.reason
    )


def test_an_export_that_is_made_meanwhile_is_noticed(
    router: Router, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path))
    waiting = Router(router.model, router.runtime, router.recipe, make_exports=False)
    assert waiting.decide(Request(IMAGED)).backend == "torch"
    Router(router.model, router.runtime, router.recipe).complete(Request(TEXT, Sampling(max_tokens=1)))
    assert waiting.decide(Request(IMAGED)).backend == "onnx"


def test_a_model_too_large_for_the_machine_is_refused_before_it_is_loaded(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.pool.total_memory", lambda: 300_000_000)
    small = Router(router.model, router.runtime, router.recipe)
    route = small.route(Request(TEXT))
    assert route.decision.backend == "genai"
    (torch,) = (candidate for candidate in route.candidates if candidate.backend == "torch")
    assert torch.refusal is not None
    assert "of memory, and this machine has 0.3 GB" in torch.refusal


def test_many_threads_on_all_three_get_their_solo_answers(router: Router) -> None:
    jobs = [
        (messages, backend, seed)
        for seed in (1, 2)
        for messages, backends in ((TEXT, ("torch", "onnx", "genai")), (IMAGED, ("torch", "onnx")))
        for backend in backends
    ]
    jobs = [(*job[:2], job[2] + 10 * extra) for extra in range(2) for job in jobs]
    solo = {job: sampled(router, *job) for job in jobs}
    random.Random(0).shuffle(jobs)
    start = threading.Barrier(8)

    def run(mine: list[tuple[tuple[Message, ...], str, int]]) -> list[tuple[int, ...]]:
        start.wait(30)
        return [sampled(router, *job) for job in mine]

    shares = [jobs[number::8] for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for mine, answers in zip(shares, pool.map(run, shares), strict=True):
            assert answers == [solo[job] for job in mine]
    assert len(set(solo.values())) == 8, "one seed, one conversation, one answer, whichever backend"


CLOSED = """
import sys
from pathlib import Path
import numpy as np
from backends import Runtime
from backends.export import Recipe
from router import Message, Picture, Request, Router, Sampling

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

router = Router(sys.argv[1], Runtime(device="cpu", dtype="fp32", threads=1), Recipe(precision="fp32"))
random, leak = np.random.default_rng(0), []
for number in range(150 + int(sys.argv[3])):
    image = Picture(random.integers(0, 256, (64, 64, 3), np.uint8))
    text = f"Number {number}: which colours do you see, and where do you see them?"
    backend = ("torch", "onnx", "genai")[number % 3]
    parts = (text,) if backend == "genai" else (image, text)
    chunks = router.stream(Request((Message.of("user", *parts),), Sampling(max_tokens=400), backend))
    next(chunks)
    next(chunks)
    if sys.argv[2] == "leave open":
        leak.append(chunks)
    else:
        chunks.close()
    if number == 149:
        before = resident()
print(resident() - before)
"""


def grown(router: Router, how: str, streams: int) -> int:
    """Bytes by which a process grows over ``streams`` that are left after two tokens."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, str(router.model.folder), how, str(streams)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell")
def test_closed_streams_leave_no_memory_behind(router: Router) -> None:
    assert grown(router, "close", 500) < 12_000_000
    assert grown(router, "leave open", 150) > 20_000_000
