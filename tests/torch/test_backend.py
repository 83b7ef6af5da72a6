"""The torch backend against transformers' own path from messages to tokens."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from backends import Prompt, Runtime  # noqa: E402
from backends.base import BackendError  # noqa: E402
from backends.machine import Processor  # noqa: E402
from backends.torch.backend import TorchBackend, TorchSession  # noqa: E402
from router import Message, Picture, Request, Router, Sampling  # noqa: E402
from router.prompt import PromptBuilder  # noqa: E402
from tests import tiny  # noqa: E402

TOKENS = 24
GREEDY = Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True)


def image(width: int, height: int, seed: int) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def say(*parts: str | Picture) -> Message:
    return Message.of("user", *parts)


LAYOUTS = {
    "text": (say("What can you do?"),),
    "system": (Message.of("system", "Answer briefly."), say("What can you do?")),
    "one image": (say(image(128, 96, 1), "Which colours do you see?"),),
    "two images": (say(image(128, 96, 2), image(100, 170, 3), "Compare them."),),
    "text image text": (say("Look at ", image(160, 110, 4), " and describe it."),),
    "image in an earlier turn": (
        say(image(96, 128, 5), "Which colours do you see?"),
        Message.of("assistant", "I see red."),
        say("And where?"),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def backend(folder: Path) -> TorchBackend:
    return TorchBackend.load(folder, Runtime(device="cpu", dtype="fp32", kept_bytes=0))


def reference_inputs(folder: Path, messages: tuple[Message, ...]) -> dict[str, "torch.Tensor"]:
    """What transformers' tokenizer and image processor make of the conversation."""
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                for part in message.parts
            ],
        }
        for message in messages
    ]
    text = tokenizer.apply_chat_template(content, tokenize=False, add_generation_prompt=True)
    images = [image.pixels for message in messages for image in message.images]
    inputs = {}
    if images:
        inputs = dict(Qwen2VLImageProcessorPil.from_pretrained(folder)(images=images, return_tensors="pt"))
        first, *rest = text.split("<|image_pad|>")
        pads = ["<|image_pad|>" * int(grid.prod() // 4) for grid in inputs["image_grid_thw"]]
        text = first + "".join(pad + after for pad, after in zip(pads, rest, strict=True))
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    return {"input_ids": ids, "mm_token_type_ids": (ids == 1022).int(), **inputs}


def reference(folder: Path, messages: tuple[Message, ...]) -> tuple[list[int], "torch.Tensor"]:
    """Greedy tokens of transformers' own generate, and the scores of each [tokens, vocab]."""
    model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.generation_config = transformers.GenerationConfig()  # no end token: every answer has all tokens
    given = reference_inputs(folder, messages)
    out = model.generate(
        **given,
        attention_mask=torch.ones_like(given["input_ids"]),
        do_sample=False,
        max_new_tokens=TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0, given["input_ids"].shape[1] :].tolist(), torch.cat(out.logits)


def scores(session: TorchSession, prompt: Prompt, tokens: list[int]) -> "np.ndarray":
    """Scores [tokens, vocab] of a prompt and of the tokens after it, fed one by one."""
    return np.stack([session.prefill(prompt).logits, *(session.decode(token) for token in tokens[:-1])])


def prompt_of(folder: Path, messages: tuple[Message, ...]) -> Prompt:
    return PromptBuilder.read(folder).plan(messages).prompt()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_tokens_and_scores_equal_transformers(
    folder: Path, backend: TorchBackend, layout: str
) -> None:
    tokens, logits = reference(folder, LAYOUTS[layout])
    router = Router(str(folder), Runtime(device="cpu", dtype="fp32"))
    answer = router.complete(Request(LAYOUTS[layout], GREEDY, backend="torch"))
    with closing(backend.open(1024)) as session:
        ours = scores(session, prompt_of(folder, LAYOUTS[layout]), tokens)
    assert list(answer.tokens) == tokens
    assert len(set(tokens)) >= 3
    assert np.abs(ours - logits.numpy()).max() <= 1e-4
    assert answer.stats.backend == "torch"
    assert answer.stats.image_tokens == int(
        reference_inputs(folder, LAYOUTS[layout])["mm_token_type_ids"].sum()
    )


def shift_positions(monkeypatch: pytest.MonkeyPatch, backend: TorchBackend) -> None:
    from backends.qwen3vl import position_ids

    def flat(tokens: int, *_: object) -> tuple["np.ndarray", int]:
        return position_ids(tokens, None, None, 2)

    monkeypatch.setattr("backends.torch.backend.position_ids", flat)


def zero_deepstack(monkeypatch: pytest.MonkeyPatch, backend: TorchBackend) -> None:
    see = TorchBackend.see

    def blind(self: TorchBackend, prompt: Prompt) -> object:
        features, deepstack = see(self, prompt)
        return features, [torch.zeros_like(feature) for feature in deepstack]

    monkeypatch.setattr(TorchBackend, "see", blind)


def shift_features(monkeypatch: pytest.MonkeyPatch, backend: TorchBackend) -> None:
    forward = backend.model.model.visual.forward

    def rolled(*args: object, **kwargs: object) -> object:
        out = forward(*args, **kwargs)
        out.pooler_output = out.pooler_output.roll(1, 0)
        return out

    monkeypatch.setattr(backend.model.model.visual, "forward", rolled)


@pytest.mark.parametrize("damage", [shift_positions, zero_deepstack, shift_features])
def test_a_wrong_position_or_feature_breaks_the_equality(
    folder: Path, backend: TorchBackend, monkeypatch: pytest.MonkeyPatch, damage: Callable[..., None]
) -> None:
    messages = LAYOUTS["one image"]
    tokens, logits = reference(folder, messages)
    damage(monkeypatch, backend)
    with closing(backend.open(1024)) as session:
        ours = scores(session, prompt_of(folder, messages), tokens)
    assert np.abs(ours - logits.numpy()).max() > 1e-2


def test_interleaved_sessions_equal_their_solo_runs(folder: Path, backend: TorchBackend) -> None:
    prompts = [prompt_of(folder, LAYOUTS[layout]) for layout in ("one image", "two images")]
    tokens = list(range(300, 312))
    solo = []
    for prompt in prompts:
        with closing(backend.open(1024)) as session:
            solo.append(scores(session, prompt, tokens))
    first, second = backend.open(1024), backend.open(1024)
    mixed = [[first.prefill(prompts[0]).logits], [second.prefill(prompts[1]).logits]]
    for token in tokens[:-1]:
        mixed[0].append(first.decode(token))
        mixed[1].append(second.decode(token))
    assert np.array_equal(np.stack(mixed[0]), solo[0])
    assert np.array_equal(np.stack(mixed[1]), solo[1])
    assert np.abs(solo[0] - solo[1]).max() > 1e-2


def test_the_time_of_the_image_is_told(folder: Path, backend: TorchBackend) -> None:
    with closing(backend.open(1024)) as session:
        assert session.prefill(prompt_of(folder, LAYOUTS["one image"])).vision_seconds > 0
    with closing(backend.open(1024)) as session:
        assert session.prefill(prompt_of(folder, LAYOUTS["text"])).vision_seconds == 0


def test_bf16_stays_near_fp32(folder: Path, backend: TorchBackend) -> None:
    prompt = prompt_of(folder, LAYOUTS["one image"])
    coarse = TorchBackend.load(folder, Runtime(device="cpu", dtype="bf16", kept_bytes=0))
    assert coarse.model.dtype == torch.bfloat16
    with closing(backend.open(1024)) as fine, closing(coarse.open(1024)) as rough:
        expected, got = fine.prefill(prompt).logits, rough.prefill(prompt).logits
    assert got.dtype == np.float32
    cosine = expected @ got / np.linalg.norm(expected) / np.linalg.norm(got)
    assert 0.99 < cosine < 0.999999


@pytest.mark.parametrize(("features", "dtype"), [({"avx2"}, "float32"), ({"avx512_bf16"}, "bfloat16")])
def test_the_weights_are_bf16_where_the_processor_multiplies_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, features: set[str], dtype: str
) -> None:
    found = Processor("x86_64", "", frozenset(features))
    monkeypatch.setattr("backends.torch.loading.Processor.read", lambda: found)
    assert TorchBackend.load(folder, Runtime(device="cpu")).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_gpu_is_named(folder: Path) -> None:
    with pytest.raises(BackendError, match="no CUDA device"):
        TorchBackend.load(folder, Runtime(device="cuda"))
