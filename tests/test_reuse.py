"""A follow-up reads only what is new, on every backend, and is answered as if it had read everything."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime_genai")

from backends import Backend, BackendError, Prefilled, Prompt, Runtime
from backends.export import Recipe
from backends.genai.backend import GenaiBackend
from backends.onnx import backend as onnx_session
from backends.onnx.backend import OnnxBackend
from backends.prefix_cache import TAIL
from backends.torch.backend import TorchBackend
from router import Message
from router.prompt import PromptBuilder
from tests.exports import exported, fp32, model
from tests.torch.test_backend import image, say

RUNTIME = Runtime(device="cpu", dtype="fp32", threads=1)
LOADERS: dict[str, Callable[[Runtime], Backend]] = {
    "torch": lambda runtime: TorchBackend.load(fp32().folder, runtime),
    "onnx": lambda runtime: OnnxBackend.load(fp32().out, runtime),
    "genai": lambda runtime: GenaiBackend.load(fp32().out, runtime),
}
SEEING = ("torch", "onnx")
QUESTION = (Message.of("system", "Answer in one short sentence."), say("What can you do with an image?"))
IMAGED = (say(image(160, 128, 1), "Which colours do you see here?"),)
ANSWER = 12


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    return PromptBuilder.read(fp32().folder)


def turn(builder: PromptBuilder, *messages: Message) -> Prompt:
    return builder.plan(messages).prompt()


def asked(backend: Backend, prompt: Prompt) -> tuple[list[int], int]:
    """Greedy tokens, and how many of the prompt's were not read again."""
    with closing(backend.open(len(prompt.ids) + ANSWER)) as session:
        prefilled = session.prefill(prompt)
        tokens = [int(prefilled.logits.argmax())]
        while len(tokens) < ANSWER:
            tokens.append(int(session.decode(tokens[-1]).argmax()))
        return tokens, prefilled.cached_tokens


def read(backend: Backend, prompt: Prompt) -> Prefilled:
    with closing(backend.open(len(prompt.ids) + ANSWER)) as session:
        return session.prefill(prompt)


@pytest.mark.parametrize(
    ("name", "first"), [*((name, IMAGED) for name in SEEING), *((name, QUESTION) for name in LOADERS)]
)
def test_a_follow_up_reads_what_is_new_and_scores_as_if_it_read_all(
    builder: PromptBuilder, name: str, first: tuple[Message, ...]
) -> None:
    backend, cold = LOADERS[name](RUNTIME), LOADERS[name](replace(RUNTIME, kept_bytes=0))
    opening = turn(builder, *first)
    tokens, cached = asked(backend, opening)
    assert cached == 0
    answered = np.concatenate([opening.ids, tokens])
    follow_up = turn(builder, *first, Message.of("assistant", "I see red."), say("And what is on the left?"))
    same = int((follow_up.ids[: len(answered)] == answered[: len(follow_up.ids)]).argmin())
    warm = read(backend, follow_up)
    assert warm.cached_tokens >= len(opening.ids)
    assert warm.cached_tokens == same
    assert warm.vision_seconds == 0
    assert warm.cached_images == opening.images
    alone = read(cold, follow_up)
    assert alone.cached_tokens == 0
    assert np.abs(warm.logits - alone.logits).max() <= 1e-4
    assert np.abs(warm.logits - read(cold, opening).logits).max() > 1e-2


@pytest.mark.parametrize("name", SEEING)
def test_another_image_of_the_same_size_is_read(builder: PromptBuilder, name: str) -> None:
    backend, cold = LOADERS[name](RUNTIME), LOADERS[name](replace(RUNTIME, kept_bytes=0))
    asked(backend, turn(builder, *IMAGED))
    other = turn(builder, say(image(160, 128, 2), "Which colours do you see here?"))
    assert np.array_equal(other.ids, turn(builder, *IMAGED).ids)
    warm = read(backend, other)
    assert (warm.cached_tokens, warm.cached_images) == (0, 0)
    assert np.abs(warm.logits - read(cold, other).logits).max() <= 1e-5
    assert np.abs(warm.logits - read(cold, turn(builder, *IMAGED)).logits).max() > 1e-2


@pytest.mark.parametrize("name", SEEING)
def test_a_new_image_after_a_kept_one_is_put_where_it_stands(builder: PromptBuilder, name: str) -> None:
    backend, cold = LOADERS[name](RUNTIME), LOADERS[name](replace(RUNTIME, kept_bytes=0))
    asked(backend, turn(builder, *IMAGED))
    second = (*IMAGED, Message.of("assistant", "Red."), say("And here?", image(96, 160, 3)))
    warm = read(backend, turn(builder, *second))
    assert warm.cached_tokens > 0
    assert warm.vision_seconds > 0
    assert warm.cached_images == 1
    assert np.abs(warm.logits - read(cold, turn(builder, *second)).logits).max() <= 1e-4


@pytest.mark.parametrize("backend_type", [OnnxBackend, GenaiBackend])
def test_the_same_prompt_asked_again_gets_the_same_scores_bit_for_bit(
    tmp_path, builder, backend_type
) -> None:
    _, out, _ = exported(tmp_path, Recipe(), model())
    backend = backend_type.load(out, RUNTIME)
    prompt = turn(builder, *QUESTION)
    first = read(backend, prompt)
    again = read(backend, prompt)
    assert again.cached_tokens == len(prompt.ids) - TAIL
    assert np.array_equal(first.logits, again.logits)


@pytest.mark.parametrize("name", LOADERS)
def test_an_answer_that_was_stopped_is_gone_on_from(builder: PromptBuilder, name: str) -> None:
    backend, prompt = LOADERS[name](RUNTIME), turn(builder, *QUESTION)
    session = backend.open(1024)
    token = int(session.prefill(prompt).logits.argmax())
    session.decode(token)
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.decode(token)
    longer = Prompt(np.concatenate([prompt.ids, [token, *range(300, 320)]]))
    assert read(backend, longer).cached_tokens == len(prompt.ids) + 1


@pytest.mark.parametrize("name", LOADERS)
def test_sessions_that_run_together_do_not_share_a_cache(builder: PromptBuilder, name: str) -> None:
    backend, prompt = LOADERS[name](RUNTIME), turn(builder, *QUESTION)
    solo, _ = asked(LOADERS[name](replace(RUNTIME, kept_bytes=0)), prompt)
    asked(backend, prompt)
    with closing(backend.open(256)) as first, closing(backend.open(256)) as second:
        tokens: list[list[int]] = [[], []]
        prefilled = [first.prefill(prompt), second.prefill(prompt)]
        assert (prefilled[0].cached_tokens > 0, prefilled[1].cached_tokens) == (True, 0)
        scores = [each.logits for each in prefilled]
        for _ in range(ANSWER):
            for each, session in enumerate((first, second)):
                tokens[each].append(int(scores[each].argmax()))
                scores[each] = session.decode(tokens[each][-1])
    assert tokens == [solo, solo]


def test_a_long_conversation_goes_on_in_a_larger_cache(
    builder: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_session, "SPARE", 0)
    backend, cold = LOADERS["onnx"](RUNTIME), LOADERS["onnx"](replace(RUNTIME, kept_bytes=0))
    messages: list[Message] = [*IMAGED]
    for number in range(4):
        prompt = turn(builder, *messages)
        tokens, cached = asked(backend, prompt)
        assert (cached > 0) == (number > 0)
        assert tokens == asked(cold, prompt)[0]
        messages += [Message.of("assistant", "I see red."), say(f"What about number {number}?")]
    assert len(backend.caches) == 1  # type: ignore[attr-defined]


def test_conversations_that_begin_alike_each_get_the_beginning(builder: PromptBuilder) -> None:
    backend, cold = LOADERS["onnx"](RUNTIME), LOADERS["onnx"](replace(RUNTIME, kept_bytes=0))
    told = Message.of("system", "You are a patient teacher of arithmetic who answers in one sentence.")
    long = turn(builder, told, say("What is seven times eight, and how do I see that without a table? " * 3))
    asked(backend, long)
    other = turn(builder, told, say("Who are you?"))
    tokens, cached = asked(backend, other)
    assert 16 <= cached < len(other.ids) - TAIL
    assert tokens == asked(cold, other)[0]
    assert asked(backend, long)[1] == len(long.ids) - TAIL, "the first conversation lost nothing"


def test_closing_stops_a_pass_of_pytorch_between_two_layers(builder: PromptBuilder) -> None:
    backend = LOADERS["torch"](RUNTIME)
    prompt = turn(builder, *IMAGED)
    fresh = asked(backend, prompt)[0]
    session = backend.open(1024)
    layers: list[int] = []

    def stop_at_second(*_: object) -> None:
        layers.append(len(layers))
        if len(layers) == 2:
            session.close()

    hooks = [
        layer.register_forward_hook(stop_at_second) for layer in backend.model.model.language_model.layers
    ]  # type: ignore[attr-defined]
    with pytest.raises(BackendError) as raised:
        session.prefill(turn(builder, say(image(64, 64, 9), "What is this?")))
    assert (raised.value.code, layers) == ("cancelled", [0, 1])
    for hook in hooks:
        hook.remove()
    assert asked(backend, prompt)[0] == fresh


def test_an_image_shown_again_after_other_words_is_not_encoded_again(builder: PromptBuilder) -> None:
    backend, cold = LOADERS["onnx"](RUNTIME), LOADERS["onnx"](replace(RUNTIME, kept_bytes=0))
    shown = image(160, 128, 1)
    asked(backend, turn(builder, say("Which colours do you see?", shown)))
    again = turn(builder, say("What is on the left?", shown))
    warm = read(backend, again)
    assert (warm.cached_tokens, warm.cached_images) == (0, 1)
    assert np.abs(warm.logits - read(cold, again).logits).max() <= 1e-5
