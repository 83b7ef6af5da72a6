"""Prompts of text: whose control tokens are in them, what equals transformers, and what is refused."""

import random
import re
import threading
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import BackendError, RequestError
from router.prompt import PromptBuilder
from router.prompt.conversation import MAX_CHARS
from router.types import Message, Role
from tests.prompt.prompt_corpus import INSTRUCT, SPECIAL, THINKING, harmless, hostile, write_model

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
SCENES = Path(__file__).parent.parent.parent / "router" / "scenes"
TEMPLATES = {"instruct": INSTRUCT, "thinking": THINKING}
TIMES = 1000  # for each of the templates


@pytest.fixture(scope="module", params=[*TEMPLATES, "scenes"])
def folder(request, tmp_path_factory):
    if request.param == "scenes":
        if not (SCENES / "tokenizer.json").is_file():
            pytest.skip("the embedded model is not here")
        return SCENES
    return write_model(tmp_path_factory.mktemp("models") / request.param, TEMPLATES[request.param])


@pytest.fixture(scope="module")
def builder(folder):
    return PromptBuilder.read(folder)


@pytest.fixture(scope="module")
def reference(folder):
    """transformers' own tokenizer over the same files."""
    return pytest.importorskip("transformers").Qwen2Tokenizer.from_pretrained(folder)


def conversation(rng: random.Random, text) -> tuple[Message, ...]:
    """One to five turns, of one to three texts each, in an order that chats have."""
    roles: list[Role] = ["user", "assistant", "user", "assistant", "user"][-rng.choice((1, 3, 5)) :]
    if rng.random() < 0.5:
        roles.insert(0, "system")
    return tuple(Message(role, tuple(text(rng) for _ in range(rng.choice((1, 1, 2, 3))))) for role in roles)


def spelled(messages: tuple[Message, ...]) -> list[dict[str, object]]:
    """Messages as transformers takes them."""
    return [
        {"role": m.role, "content": [{"type": "text", "text": part} for part in m.parts]} for m in messages
    ]


def text_of(builder: PromptBuilder, ids) -> str:
    return builder.tokenizer.decode(list(ids), skip_special_tokens=False)


def composed(builder: PromptBuilder, text: str) -> str:
    """``text`` in NFC, stretch by stretch between two of the added tokens that a text may spell."""
    added = builder.tokenizer.get_added_tokens_decoder().values()
    words = [re.escape(token.content) for token in added if not token.special]
    stretches = re.split(f"({'|'.join(words) or '(?!)'})", text)
    return "".join(unicodedata.normalize("NFC", stretch) for stretch in stretches)


def control(builder: PromptBuilder, ids) -> list[int]:
    return [int(number) for number in ids if number in builder.control_ids]


def framing(builder: PromptBuilder, messages: tuple[Message, ...]) -> list[int]:
    """The control tokens that a template places: each turn's two, and the start of the answer."""
    start, end = builder.controls["<|im_start|>"], builder.controls["<|im_end|>"]
    return [start, end] * len(messages) + [start]


# --- text


def test_hostile_text_gives_no_control_token_and_comes_back_whole(builder, reference):
    rng = random.Random(13)
    for _ in range(TIMES):
        messages = conversation(rng, hostile)
        ids = builder.plan(messages).ids
        assert control(builder, ids) == framing(builder, messages)
        rendered = reference.apply_chat_template(
            spelled(messages), tokenize=False, add_generation_prompt=True
        )
        assert text_of(builder, ids) == composed(builder, rendered)


def test_harmless_text_has_the_ids_of_transformers(builder, reference):
    rng, compared = random.Random(14), 0
    for _ in range(TIMES):
        messages = conversation(rng, harmless)
        if any(token in "".join(message.parts) for message in messages for token in SPECIAL):
            continue  # two harmless texts, one after the other, spell a control token
        compared += 1
        expected = reference.apply_chat_template(spelled(messages), add_generation_prompt=True)["input_ids"]
        assert builder.plan(messages).ids.tolist() == expected
    assert compared > 0.95 * TIMES


def test_a_plain_tokenizer_fails_both_ways(builder, reference):
    rng = random.Random(15)
    forged = different = 0
    alone = builder.tokenizer
    for _ in range(300):
        messages = (Message.of("user", hostile(rng)),)
        naive = reference.apply_chat_template(spelled(messages), add_generation_prompt=True)["input_ids"]
        forged += control(builder, naive) != framing(builder, messages)
        words = harmless(rng)
        pieces = [alone.encode(piece).ids for piece in ("user\n", words)]
        together = alone.encode("user\n" + words).ids
        different += pieces[0] + pieces[1] != together
    assert forged > 100
    if alone.token_to_id("ĊĊ") is not None:  # two newlines as one token, as Qwen's vocabulary has it
        assert different > 5


@pytest.mark.parametrize("token", SPECIAL)
@pytest.mark.parametrize("role", ROLES)
def test_a_control_token_in_a_text_is_its_characters(builder, role, token):
    messages = (Message.of("user", "a"), Message.of("user", "b"))
    place = 0 if role == "system" else 1
    messages = (
        *messages[:place],
        Message.of(role, f"a{token}b", token[:3], token[3:]),
        Message.of("user", "c"),
    )
    ids = builder.plan(messages).ids
    assert control(builder, ids) == framing(builder, messages)
    assert f"a{token}b{token}" in text_of(builder, ids)


def test_an_earlier_thought_is_read_as_the_reference_reads_it(builder, reference):
    thoughts = "<think>\nlet me see\n</think>\n\nIt is red."
    messages = (Message.of("user", "colour?"), Message.of("assistant", thoughts), Message.of("user", "sure?"))
    expected = reference.apply_chat_template(spelled(messages), add_generation_prompt=True)["input_ids"]
    assert builder.plan(messages).ids.tolist() == expected


@pytest.mark.parametrize("text", ["\0", "a\0b", "\u202eabc\u202c", "\ufeff", "", " ", "\n", "🙂" * 50])
def test_nul_bidi_and_emoji_pass_unchanged(builder, text):
    assert text in text_of(builder, builder.plan((Message.of("user", "x", text, "x"),)).ids)


@pytest.mark.parametrize(
    "text", ["\ud800", "a\udfffb", "\ude42\ud83d", "".join(map(chr, range(0xD800, 0xE000)))]
)
@pytest.mark.parametrize("role", ROLES)
def test_half_a_surrogate_pair_is_refused_by_name(builder, role, text):
    messages = (Message.of(role, "fine", text), Message.of("user", "fine"))
    with pytest.raises(RequestError, match="surrogate") as caught:
        builder.plan(messages)
    assert (caught.value.code, caught.value.param) == ("invalid_encoding", "messages[0].content[1]")
    str(caught.value).encode("utf-8")


def test_threads_share_a_builder(builder):
    conversations = [conversation(random.Random(seed), hostile) for seed in range(40)]
    alone = [builder.plan(messages).ids.tolist() for messages in conversations]
    together: dict[int, list[int]] = {}

    def work(offset: int) -> None:
        for index in range(offset, 40, 4):
            together[index] = builder.plan(conversations[index]).ids.tolist()

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(40)] == alone


# --- what is refused


def test_an_empty_conversation_is_refused(builder):
    with pytest.raises(RequestError, match="no message to answer"):
        builder.plan(())


def test_a_late_system_message_is_refused(builder):
    with pytest.raises(RequestError, match="only the first") as caught:
        builder.plan((Message.of("user", "a"), Message.of("system", "b")))
    assert caught.value.param == "messages[1].role"


def test_an_empty_message_is_an_empty_turn(builder):
    assert control(builder, builder.plan((Message("user", ()),)).ids) == framing(builder, ("one",))


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(builder):
    longest, context = max(map(len, builder.tokenizer.get_vocab())), builder.config.text.context
    assert builder.max_chars == min(MAX_CHARS, context * longest)
    with pytest.raises(
        RequestError, match=rf"{builder.max_chars + 1} characters.*{context} tokens"
    ) as caught:
        replace(builder, tokenizer=None).plan((Message.of("user", "a", "b" * builder.max_chars),))
    assert caught.value.code == "context_length_exceeded"


def test_more_messages_than_tokens_are_refused(builder):
    too_many = builder.config.text.context + 1
    with pytest.raises(RequestError, match=f"{too_many} parts") as caught:
        builder.plan((Message.of("user", ""),) * too_many)
    assert caught.value.code == "context_length_exceeded"


def test_a_tokenizer_that_makes_control_tokens_is_noticed(builder, monkeypatch):
    monkeypatch.setattr(builder.tokenizer, "encode_special_tokens", False)
    with pytest.raises(BackendError, match="control token from text") as caught:
        builder.plan((Message.of("user", "<|im_end|>"),))
    assert caught.value.code == "internal_inconsistency"
