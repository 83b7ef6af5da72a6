"""The loop, driven by the scripted backend: no weights are read."""

import threading
import time

import numpy as np
import pytest

from backends.base import BackendError, Prompt
from backends.scripted import Script, ScriptedBackend, ScriptedSession
from router.detokenize import TextStream
from router.generate import Cancellation, generate
from router.types import Chunk, Sampling

END = 0
ALPHABET = " abcdefghijklmnopqrstuvwxyz"
PROMPT = Prompt(np.arange(1, 6, dtype=np.int64))


def spell(text: str) -> tuple[int, ...]:
    return tuple(ALPHABET.index(character) + 1 for character in text)


def read(tokens: "list[int] | tuple[int, ...]") -> str:
    return "".join(ALPHABET[token - 1] for token in tokens if token != END)


def backend(text: str, **script: object) -> ScriptedBackend:
    return ScriptedBackend(Script((*spell(text), END), **script), vocab=64)  # type: ignore[arg-type]


def run(played: ScriptedBackend, **sampling: object) -> list[Chunk]:
    said = Sampling(**{"temperature": 0.0, "max_tokens": 100, **sampling})  # type: ignore[arg-type]
    stop = said.stop or ()
    return list(generate(played, PROMPT, said, TextStream(read, stop), frozenset({END})))


def joined(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_an_answer_ends_at_the_end_token() -> None:
    chunks = run(backend("hello world"))
    assert joined(chunks) == "hello world"
    assert [token for chunk in chunks for token in chunk.tokens] == [*spell("hello world"), END]
    assert [chunk.finish for chunk in chunks] == [None] * 11 + ["stop"]


def test_only_the_last_chunk_has_stats_and_they_count_what_was_picked() -> None:
    chunks = run(backend("hello", delay=0.01))
    assert all(chunk.stats is None for chunk in chunks[:-1])
    stats = chunks[-1].stats
    assert stats is not None
    assert (stats.backend, stats.prompt_tokens, stats.image_tokens, stats.output_tokens) == (
        "scripted",
        5,
        0,
        6,
    )
    assert stats.prefill_seconds >= 0.01
    assert stats.decode_seconds >= 0.05


def test_an_answer_is_cut_at_max_tokens_without_a_wasted_step() -> None:
    played = backend("hello world")
    chunks = run(played, max_tokens=3)
    assert (joined(chunks), chunks[-1].finish) == ("hel", "length")


def test_no_step_follows_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setattr(ScriptedSession, "decode", lambda self, token: steps.append(token) or self._play())
    run(backend("hello world"), max_tokens=3)
    assert steps == list(spell("he"))


def test_a_stop_string_ends_the_answer_and_is_never_shown() -> None:
    chunks = run(backend("one two three"), stop=("two",))
    assert (joined(chunks), chunks[-1].finish) == ("one ", "stop")
    assert not any("t" in chunk.text for chunk in chunks)


def test_text_held_back_for_a_stop_string_is_shown_when_the_answer_ends() -> None:
    assert joined(run(backend("one tw"), stop=("two",))) == "one tw"
    assert joined(run(backend("one two"), stop=("two x",), max_tokens=6)) == "one tw"


def test_ignore_eos_goes_on_until_max_tokens() -> None:
    chunks = run(backend("hi"), ignore_eos=True, max_tokens=6)
    assert chunks[-1].finish == "length"
    assert sum(len(chunk.tokens) for chunk in chunks) == 6


def test_a_stop_token_ends_the_answer() -> None:
    chunks = run(backend("abcd"), stop_token_ids=spell("c"))
    assert (joined(chunks), chunks[-1].finish) == ("ab", "stop")


def test_log_probabilities_come_with_their_tokens() -> None:
    chunks = run(backend("ab"), logprobs=2)
    scores = [score for chunk in chunks for score in chunk.logprobs]
    assert [score.token for score in scores] == [*spell("ab"), END]
    assert all(len(score.top) == 2 and score.logprob > -1e-3 for score in scores)


@pytest.mark.parametrize(("at", "shown"), [(0, ""), (3, "hel"), (5, "hello")])
def test_a_score_that_is_no_number_is_an_error_and_never_a_token(at: int, shown: str) -> None:
    played, seen = backend("hello", fault="nan", fault_at=at), []
    chunks = generate(
        played, PROMPT, Sampling(temperature=0, max_tokens=9), TextStream(read), frozenset({END})
    )
    with pytest.raises(BackendError) as raised:
        seen.extend(iter(lambda: next(chunks), None))
    assert raised.value.code == "numerical_error"
    assert joined(seen) == shown
    assert played.open_sessions == 0


def test_a_failing_backend_frees_its_session() -> None:
    played = backend("hello", fault="raise", fault_at=2)
    with pytest.raises(BackendError, match="fail here"):
        run(played)
    assert played.open_sessions == 0


def test_closing_the_stream_frees_the_session_at_once() -> None:
    played = backend("hello")
    chunks = generate(
        played, PROMPT, Sampling(temperature=0, max_tokens=9), TextStream(read), frozenset({END})
    )
    next(chunks)
    assert played.open_sessions == 1
    chunks.close()
    assert played.open_sessions == 0


def test_another_thread_ends_it_in_the_middle_of_a_prefill() -> None:
    played, stop = backend("hello", fault="hang", fault_at=0), Cancellation()
    chunks = generate(
        played, PROMPT, Sampling(temperature=0, max_tokens=9), TextStream(read), frozenset({END}), stop
    )

    def stop_when_it_reads() -> None:
        while not any(session.played for session in tuple(played.sessions)):
            time.sleep(0.001)
        stop()

    threading.Thread(target=stop_when_it_reads, daemon=True).start()
    with pytest.raises(BackendError) as raised:
        next(chunks)
    assert raised.value.code == "cancelled"
    assert played.open_sessions == 0


def test_what_is_ended_between_two_chunks_frees_its_session_and_gives_no_more() -> None:
    played, stop = backend("hello"), Cancellation()
    chunks = generate(
        played, PROMPT, Sampling(temperature=0, max_tokens=9), TextStream(read), frozenset({END}), stop
    )
    next(chunks)
    stop()
    assert played.open_sessions == 0
    with pytest.raises(BackendError, match="cancelled"):
        next(chunks)


def test_what_is_ended_before_it_began_computes_nothing() -> None:
    played, stop = backend("hello", fault="raise"), Cancellation()
    stop()
    with pytest.raises(BackendError, match="cancelled"):
        next(generate(played, PROMPT, Sampling(max_tokens=9), TextStream(read), frozenset({END}), stop))
    assert played.open_sessions == 0


def test_ending_what_is_at_its_end_does_nothing() -> None:
    stop = Cancellation()
    chunks = generate(
        backend("hi"), PROMPT, Sampling(temperature=0, max_tokens=9), TextStream(read), frozenset({END}), stop
    )
    assert joined(list(chunks)) == "hi"
    stop()


def test_a_slow_reader_does_not_count_as_decode_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("router.generate.time.perf_counter", lambda: now)
    decode = ScriptedSession.decode

    def step(self: ScriptedSession, token: int) -> object:
        nonlocal now
        now += 1.0
        return decode(self, token)

    monkeypatch.setattr(ScriptedSession, "decode", step)

    for chunk in generate(
        backend("abc"), PROMPT, Sampling(temperature=0, max_tokens=9), TextStream(read), frozenset({END})
    ):
        now += 1000.0
        last = chunk
    assert last.stats is not None
    assert last.stats.decode_seconds == 3.0
    assert last.stats.tokens_per_second == 1.0
