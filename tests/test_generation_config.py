"""A model's generation_config.json through the whole router: its tokens are transformers' own."""

import json
import threading
from pathlib import Path

import pytest

from backends import Runtime
from router import Message, Request, Router, Sampling
from router.cli import run
from router.models import Listener

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests import tiny  # noqa: E402 - it needs torch
from tests.torch.test_backend import reference_inputs  # noqa: E402

MESSAGES = (Message.of("user", "What can you do? What can you do?"),)
COUNT = 24
PLAIN = {"eos_token_id": 1012, "max_new_tokens": COUNT}


def written(folder: Path, **said: object) -> Path:
    tiny.write(folder)
    (folder / "generation_config.json").write_text(json.dumps(PLAIN | said))
    return folder


def generated(folder: Path) -> list[int]:
    """Tokens of transformers' own generate, which reads the folder's generation_config.json itself."""
    model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    given = reference_inputs(folder, MESSAGES)
    out = model.generate(**given, attention_mask=torch.ones_like(given["input_ids"]))
    return out[0, given["input_ids"].shape[1] :].tolist()


def answered(folder: Path, backend: str) -> list[int]:
    router = Router(str(folder), Runtime(device="cpu", dtype="fp32"))
    return list(router.complete(Request(MESSAGES, backend=backend)).tokens)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """The answer without any rule."""
    return generated(written(tmp_path_factory.mktemp("plain")))


def rules_against(plain: list[int]) -> list[dict[str, object]]:
    """Rules each of which the answer without rules breaks."""
    return [
        {"suppress_tokens": plain[:3]},
        {"begin_suppress_tokens": plain[:1]},
        {"bad_words_ids": [plain[2:4], plain[5:6]]},
        {"sequence_bias": [[plain[1:4], -90.0]]},
        {"no_repeat_ngram_size": 1},
        {"encoder_repetition_penalty": 3.0, "encoder_no_repeat_ngram_size": 2},
        {"forced_eos_token_id": [1012, 1010]},
        {"exponential_decay_length_penalty": [4, 1.4]},
        {"min_length": 30, "exponential_decay_length_penalty": [0, 3.0]},
        {"max_new_tokens": None, "max_length": 40},
    ]


@pytest.mark.parametrize("rule", range(10))
def test_the_tokens_are_those_of_transformers_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: list[int], rule: int
) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    folder = written(tmp_path / "model", **rules_against(plain)[rule])
    wanted = generated(folder)
    assert wanted != plain, "the rule shows"
    assert answered(folder, "torch") == wanted


@pytest.mark.parametrize("backend", ["onnx", "genai"])
def test_every_backend_holds_to_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: list[int], backend: str
) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    folder = written(tmp_path / "model", suppress_tokens=plain, begin_suppress_tokens=[7, 8])
    free = answered(written(tmp_path / "free"), backend)
    held = answered(folder, backend)
    assert set(free) & set(plain)
    assert not set(held) & set(plain)
    assert held[0] not in (7, 8)


def test_what_is_not_done_is_told_once_for_a_router_and_shown_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    folder = written(tmp_path / "model", num_beams=4, suppress_tokens=[1], length_penalty=2.0)
    told: list[str] = []
    router = Router(str(folder), listener=Listener(notice=told.append))
    threads = [threading.Thread(target=router.decide, args=(Request(MESSAGES),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sentence = "generation_config.json: num_beams is ignored: one answer is followed, not several beams"
    assert told == [sentence]
    assert run(["models", "show", str(folder)]) == 0
    assert f"{sentence}\n" in capsys.readouterr().out
    assert run(["models", "show", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ignored"] == [sentence.partition(": ")[2]]
    assert run(["generate", "-m", str(folder), "--backend", "torch", "--max-tokens", "1", "Hello"]) == 0
    assert capsys.readouterr().err.count(f"hybrid: {sentence}\n") == 1


def test_a_model_that_says_nothing_unusual_is_answered_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path / "home"))
    folder = written(tmp_path / "model", suppress_tokens=[1], temperature=0.7, transformers_version="5.23.0")
    told: list[str] = []
    Router(str(folder), listener=Listener(notice=told.append)).decide(
        Request(MESSAGES, Sampling(max_tokens=1))
    )
    assert told == []
    assert run(["models", "show", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ignored"] == []
