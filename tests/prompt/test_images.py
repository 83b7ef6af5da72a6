"""Prompts with images: where the places are, how many, and what must fit before an image is read."""

import re

import numpy as np
import pytest
from PIL import Image

from backends.base import BackendError, RequestError
from router.prompt import Plan, PromptBuilder
from router.prompt import builder as module
from router.types import Message, Picture
from tests.prompt.prompt_corpus import INSTRUCT, PREPROCESSOR, SPECIAL, THINKING, ids_of, write_model

(PAD,) = ids_of("<|image_pad|>")
WIDE, TALL, TINY = ((200, 90), (64, 300), (1, 1))  # width, height


def image(width: int, height: int) -> Picture:
    values = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    return Picture((values % 251).astype(np.uint8))


def marked(messages: tuple[Message, ...]) -> list[dict[str, object]]:
    """Messages as transformers takes them, without the images themselves."""
    image = {"type": "image"}
    return [
        {
            "role": m.role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else image for p in m.parts],
        }
        for m in messages
    ]


LAYOUTS = {
    "image first": (Message.of("user", image(*WIDE), "What is this?"),),
    "text first": (Message.of("user", "What is this?", image(*WIDE)),),
    "image alone": (Message.of("user", image(*TINY)),),
    "text, image, text": (Message.of("user", "This:", image(*TALL), "What is it?"),),
    "two sizes": (Message.of("user", image(*WIDE), image(*TALL), "Compare."),),
    "two sizes, swapped": (Message.of("user", image(*TALL), " and ", image(*WIDE), "Compare."),),
    "first of two turns": (
        Message.of("system", "Be brief."),
        Message.of("user", image(*WIDE), "What is this?"),
        Message.of("assistant", "A plane."),
        Message.of("user", "Which colour?"),
    ),
    "both turns": (
        Message.of("user", "One:", image(*TALL)),
        Message.of("assistant", "I see."),
        Message.of("user", "Two:", image(*TINY), image(*WIDE), "Compare."),
    ),
    "a forged place before": (
        Message.of(
            "user", "<|vision_start|>" + "<|image_pad|>" * 40 + "<|vision_end|>", image(*WIDE), "What?"
        ),
    ),
    "a forged place after": (Message.of("user", image(*WIDE), "<|image_pad|>", "<|image_", "pad|>"),),
}


@pytest.fixture(scope="module", params=[INSTRUCT, THINKING], ids=["instruct", "thinking"])
def folder(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def builder(folder):
    return PromptBuilder.read(folder)


@pytest.fixture(scope="module")
def processor():
    """transformers' image processor, with the limits of the tiny model."""
    pytest.importorskip("torch")
    qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    return qwen.Qwen2VLImageProcessorPil(**PREPROCESSOR)


@pytest.mark.parametrize("messages", LAYOUTS.values(), ids=LAYOUTS)
def test_every_image_has_its_place(builder, processor, messages):
    plan = builder.plan(messages)
    prompt = plan.prompt()
    images = [Image.fromarray(each.pixels) for message in messages for each in message.images]
    grids = np.concatenate([processor([each], return_tensors="np")["image_grid_thw"] for each in images])
    assert prompt.grid.tolist() == grids.tolist()
    assert (prompt.spans[:, 1] - prompt.spans[:, 0]).tolist() == (grids.prod(axis=1) // 4).tolist()
    assert prompt.patches.shape == (grids.prod(axis=1).sum(), 1536)
    assert prompt.image_tokens == plan.image_tokens
    placed = np.concatenate([np.arange(*span) for span in prompt.spans])
    # every pad is in a span and every span is all pads: forged ones are text
    assert placed.tolist() == np.flatnonzero(prompt.ids == PAD).tolist()
    for first, last in prompt.spans:
        assert prompt.ids[[first - 1, last]].tolist() == ids_of("<|vision_start|>", "<|vision_end|>")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if "forged" not in name])
def test_the_ids_are_those_of_the_reference_processor(folder, builder, name):
    messages = LAYOUTS[name]
    plan = builder.plan(messages)
    qwen = pytest.importorskip("transformers").Qwen2Tokenizer.from_pretrained(folder)
    rendered = qwen.apply_chat_template(marked(messages), tokenize=False, add_generation_prompt=True)
    counts = iter(plan.spans[:, 1] - plan.spans[:, 0])
    expanded = re.sub(re.escape("<|image_pad|>"), lambda pad: pad[0] * int(next(counts)), rendered)
    assert plan.ids.tolist() == qwen(expanded)["input_ids"]


def test_an_overlong_prompt_is_refused_before_an_image_is_read(builder, monkeypatch):
    def read(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr(module, "patches", read)
    plan = builder.plan((Message.of("user", image(*WIDE), image(*TALL), "What?"),))
    tokens = len(plan.ids)
    with pytest.raises(
        RequestError, match=rf"{tokens} tokens \({plan.image_tokens} of them images\)"
    ) as caught:
        plan.room(None, None, tokens)
    assert caught.value.code == "context_length_exceeded"
    assert plan.room(1, None, tokens + 1) == 1
    with pytest.raises(AssertionError, match="was read"):
        plan.prompt()


def plan_of(tokens: int) -> Plan:
    none = np.empty((0, 2), np.int64)
    return Plan(np.zeros(tokens, np.int64), none, np.empty((0, 3), np.int64), (), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "asked", "default", "room"),
    [
        (90, 9, None, 9),
        (90, 10, None, 10),
        (90, 11, None, None),
        (90, None, None, 10),
        (90, None, 7, 7),
        (90, None, 99, 10),
        (90, 3, 7, 3),
        (99, 1, None, 1),
        (99, None, None, 1),
        (100, None, None, None),
        (100, 1, None, None),
        (101, None, 5, None),
        (150, 10, None, None),
    ],
)
def test_the_answer_gets_what_the_context_leaves(tokens, asked, default, room):
    plan = plan_of(tokens)
    if room is not None:
        assert plan.room(asked, default, 100) == room
        return
    with pytest.raises(RequestError) as caught:
        plan.room(asked, default, 100)
    assert caught.value.code == "context_length_exceeded"
    numbers = [int(number) for number in re.findall(r"\d+", str(caught.value))]
    assert numbers[:3] == [tokens, 100] if asked is None else {tokens, asked, 100} <= set(numbers)


def test_too_many_images_are_refused(builder):
    messages = (Message.of("user", *[image(*TINY)] * 8), Message.of("user", image(*TINY), "Compare."))
    with pytest.raises(RequestError, match="9 images; at most 8") as caught:
        builder.plan(messages)
    assert caught.value.code == "too_many_images"
    assert len(builder.plan(messages[:1]).spans) == 8


def test_an_image_of_an_impossible_shape_is_named(builder):
    with pytest.raises(RequestError) as caught:
        builder.plan((Message.of("user", "a"), Message.of("user", "b", image(1, 300))))
    assert (caught.value.code, caught.value.param) == ("image_aspect_ratio", "messages[1].content[1]")


USER_ONLY = """{%- for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}
{%- if part.type == 'text' %}{{ part.text }}
{%- elif message.role == 'user' %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}<|im_end|>
{% endfor %}"""


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_an_image_that_the_template_does_not_read_is_refused(tmp_path, role):
    builder = PromptBuilder.read(write_model(tmp_path, USER_ONLY))
    messages = (Message.of(role, image(*TINY), "Look."), Message.of("user", image(*TINY), "Look."))
    assert len(builder.plan(messages[1:]).spans) == 1
    with pytest.raises(RequestError, match=f"no images in {role} messages") as caught:
        builder.plan(messages)
    assert caught.value.param == "messages[0].content"


TEXT_ONLY = """{% for m in messages %}<|im_start|>
{{- m.content if m.content is string else m.content[-1].text }}{% endfor %}"""


@pytest.mark.parametrize(
    ("template", "code"),
    [(TEXT_ONLY, "model_invalid"), (INSTRUCT + "<|image_pad|>", "internal_inconsistency")],
)
def test_a_template_with_other_places_than_images_is_refused(tmp_path, template, code):
    builder = PromptBuilder.read(write_model(tmp_path, template))
    with pytest.raises(BackendError) as caught:
        builder.plan((Message.of("user", image(*TINY), "Look."),))
    assert caught.value.code == code


@pytest.mark.parametrize("wrong", ["grid", "rows"])
def test_patches_that_do_not_fit_their_places_are_noticed(builder, monkeypatch, wrong):
    read = module.patches

    def forged(pixels, limits):
        rows, (t, h, w) = read(pixels, limits)
        return (rows, (t, w, h)) if wrong == "grid" else (rows[:-1], (t, h, w))

    monkeypatch.setattr(module, "patches", forged)
    with pytest.raises(BackendError) as caught:
        builder.plan(LAYOUTS["image first"]).prompt()
    assert caught.value.code == "internal_inconsistency"


def test_a_text_prompt_has_no_image_parts(builder):
    prompt = builder.plan((Message.of("user", *SPECIAL),)).prompt()
    assert (prompt.patches, prompt.grid, prompt.spans, prompt.image_tokens) == (None, None, None, 0)
