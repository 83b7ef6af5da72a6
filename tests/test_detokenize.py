from functools import cache
from itertools import chain

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from router.detokenize import TextStream

HALF = "\ufffd"
CORPUS = [
    "the cat sat on the mat, the cat ate",
    "naïve café übung",
    "你好世界 你好",
    "👍🏽👩‍👩‍👧 👍👍",
    "a\n\nb  c   d",
] * 4


@cache
def tokenizer():
    """A byte-level BPE as Qwen's is: 256 bytes, some merges, one special token, one added plain one."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens([AddedToken("<|end|>", special=True)])
    made.add_tokens([AddedToken("<think>", special=False)])
    return made


@cache
def byte_tokens():
    """The token of every byte; a byte-level vocabulary writes bytes as characters, by GPT-2's table."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    written = {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return {byte: tokenizer().token_to_id(character) for byte, character in written.items()}


def as_bytes(text):
    """One token for each byte, so that every character of more than one byte is split."""
    return [byte_tokens()[byte] for byte in text.encode()]


def whole(ids):
    return tokenizer().decode(list(ids))


def stream(ids, stop=(), decode=None):
    """What was shown after each token, and at the end by flush; and the stream."""
    text = TextStream(decode or tokenizer().decode, stop)
    return [text.push(token) for token in ids] + [text.flush()], text


def cut(text, stop):
    """The naive reading: character by character, cut at the first stop string to be complete."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


def held(text, stop):
    """The longest end of ``text`` that a stop string begins with."""
    ends = (text[-n:] for n in range(len(text), 0, -1))
    return next((end for end in ends if any(s != end and s.startswith(end) for s in stop)), "")


def any_ids():
    """Tokens of every kind: words, single bytes in senseless order, special ones, ids that do not exist."""
    size = tokenizer().get_vocab_size()
    odd = [*as_bytes("👍é\ufffd"), tokenizer().token_to_id("<|end|>"), size + 7]
    return st.lists(st.integers(0, size - 1) | st.sampled_from(odd), max_size=25)


@given(any_ids())
@settings(max_examples=500, deadline=None)
@example([])
def test_the_joined_stream_is_the_decoding_of_all_tokens(ids):
    pieces, text = stream(ids)
    assert "".join(pieces) == whole(ids)
    assert not text.stopped


@given(any_ids())
@settings(max_examples=200, deadline=None)
def test_all_but_one_doubtful_character_is_shown_at_once(ids):
    pieces, _ = stream(ids)
    for count in range(len(ids) + 1):
        decoded = whole(ids[:count])
        assert "".join(pieces[:count]) == decoded[: len(decoded) - decoded.endswith(HALF)]


@given(st.text(max_size=20) | st.text("a é👍你🏽\u200d", max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_half_character_is_never_shown(text):
    for ids in (as_bytes(text), tokenizer().encode(text).ids):
        pieces, _ = stream(ids)
        assert "".join(pieces) == text
        assert HALF in text or not any(HALF in piece for piece in pieces)


def test_an_emoji_split_over_tokens_appears_with_its_last_byte():
    pieces, _ = stream(as_bytes("a👍b"))
    assert pieces == ["a", "", "", "", "👍", "b", ""]


def test_the_usual_stream_would_show_halves():
    # The control for the tests above: decoding every token alone
    naive = [whole([token]) for token in as_bytes("a👍b")]
    assert "".join(naive) == "a" + HALF * 4 + "b"


@pytest.mark.parametrize("odd", [b"\xff", b"\x80", b"\xf0\x9f", b"\xef\xbf\xbd", b"\xe4\xbd\xe4\xbd"])
def test_bytes_that_never_become_a_character_hold_nothing_up(odd):
    pieces, _ = stream([byte_tokens()[byte] for byte in odd] + as_bytes("ab"))
    assert "".join(pieces[: len(odd) + 1]) == odd.decode(errors="replace") + "a"


def test_a_character_cut_off_by_the_end_is_flushed_as_one_replacement_character():
    pieces, _ = stream(as_bytes("a👍")[:-1])
    assert pieces == ["a", "", "", "", HALF]


def test_special_tokens_are_not_text_and_do_not_break_a_character():
    end = tokenizer().token_to_id("<|end|>")
    thumb = as_bytes("👍")
    pieces, _ = stream([end, *thumb[:2], end, end, *thumb[2:], end])
    assert "".join(pieces) == "👍"


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(lambda: tokenizer().encode("the cat sat " * 300).ids, id="words"),
        pytest.param(lambda: [tokenizer().token_to_id("<|end|>")] * 2000, id="special"),
        pytest.param(lambda: as_bytes("👍")[:2] + [tokenizer().token_to_id("<|end|>")] * 2000, id="half"),
        pytest.param(lambda: [byte_tokens()[0x80]] * 2000, id="stray"),
        pytest.param(lambda: [byte_tokens()[0xF0]] * 2000, id="begun"),
        pytest.param(lambda: as_bytes("\ufffd" * 700), id="literal"),
        pytest.param(lambda: as_bytes("👍" * 500), id="emoji"),
    ],
)
def test_a_long_answer_is_not_decoded_over_and_over(ids):
    read = []

    def decode(window):
        read.append(len(window))
        return tokenizer().decode(window)

    tokens = ids()
    pieces, _ = stream(tokens, stop=("zzz",), decode=decode)
    assert "".join(pieces) == whole(tokens)
    assert max(read) <= 10
    assert len(read) <= 2 * len(tokens) + 1


STOP_CHARACTERS = "ab👍é"
stops = st.lists(st.text(STOP_CHARACTERS, min_size=1, max_size=4), max_size=4).map(tuple)


def stop_ids():
    """Tokens over few characters, so that stop strings are hit often, begun often and split in every way."""
    words = [as_bytes(c) for c in STOP_CHARACTERS] + [tokenizer().encode("👍👍").ids, as_bytes("👍")[:3]]
    words.append([tokenizer().token_to_id("<|end|>")])
    return st.lists(st.sampled_from(words), max_size=12).map(lambda drawn: [*chain(*drawn)])


@given(stop_ids(), stops)
@settings(max_examples=2000, deadline=None)
def test_the_text_ends_before_the_first_stop_string_and_nothing_of_it_is_shown(ids, stop):
    pieces, text = stream(ids, stop)
    assert "".join(pieces) == cut(whole(ids), stop)
    assert text.stopped == any(s in whole(ids) for s in stop)


@given(stop_ids(), stops)
@settings(max_examples=200, deadline=None)
def test_only_the_beginning_of_a_stop_string_is_held_back(ids, stop):
    pieces, _ = stream(ids, stop)
    for count in range(len(ids) + 1):
        decoded = whole(ids[:count])
        certain = decoded[: len(decoded) - decoded.endswith(HALF)]
        if any(s in certain for s in stop):
            break
        assert "".join(pieces[:count]) == certain[: len(certain) - len(held(certain, stop))]


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("one STOP two", ("STOP",), "one "),
        ("one STOP two", ("two", "one STOP"), ""),
        ("aaab", ("aab",), "a"),
        ("abcd", ("abcd", "bc"), "a"),  # "bc" is complete first
        ("the cat", (" cat", "ca"), "the "),  # also where one token completes both
        ("abc", ("bc", "abc"), ""),  # both at once: the longer one
        ("a👍🏽b", ("👍🏽",), "a"),
        ("a👍b", ("🏽",), "a👍b"),
        ("ends in ST", ("STOP",), "ends in ST"),
        ("a" + HALF, (HALF,), "a"),
        ("", ("a",), ""),
    ],
)
def test_stop_strings_by_example(text, stop, shown):
    for ids in (as_bytes(text), tokenizer().encode(text).ids):
        pieces, read = stream(ids, stop)
        assert "".join(pieces) == shown
        assert read.stopped == any(s in text for s in stop)


def test_a_stop_inside_a_token_tells_the_loop_and_ends_the_text():
    text = TextStream(tokenizer().decode, ("at",))
    ids = tokenizer().encode("the cat sat").ids
    shown = ""
    while not text.stopped:
        shown += text.push(ids.pop(0))
    assert shown == "the c"
    assert [text.push(token) for token in ids] == [""] * len(ids)
    assert text.flush() == ""


@given(st.lists(st.sampled_from(["▁", "▁a", "b", "▁▁", "<|end|>"]), max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_decoder_that_drops_the_first_space_streams_as_it_decodes(words):
    vocab = {"▁": 0, "▁a": 1, "b": 2, "▁▁": 3}
    spaced = Tokenizer(models.WordLevel(vocab, unk_token="b"))
    spaced.decoder = decoders.Metaspace()
    spaced.add_special_tokens(["<|end|>"])
    ids = [spaced.token_to_id(word) for word in words]
    pieces, _ = stream(ids, decode=spaced.decode)
    assert "".join(pieces) == spaced.decode(ids)
